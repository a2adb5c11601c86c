"""The sheet shows each picture at its place."""

import numpy as np

from t2i_jax.evaluation.contact_sheet import contact_sheet


def test_every_picture_is_on_the_sheet():
    images = np.zeros((5, 8, 8, 3), np.uint8)
    for i in range(5):
        images[i] = 40 * (i + 1)
    page = np.asarray(
        contact_sheet(
            images,
            ["a", "", "ein Bild mit einer sehr langen Überschrift " * 3, "猫", "e"],
            columns=3,
            tile=64,
        )
    )
    assert page.shape[1] == 3 * 72 + 8
    for i in range(5):
        assert (page == 40 * (i + 1)).all(-1).sum() >= 64 * 64
    assert (page[8 : 8 + 64, 8 : 8 + 64] == 40).all()
