"""Planted pictures: where they are, what they look like, and that the rest stays as it is."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.core.source import Source
from t2i_jax.data import canaries, inner
from t2i_jax.data.load import load_source

OWN = 5  # examples of the source they are planted in


@pytest.fixture(autouse=True)
def known_source(monkeypatch):
    """The inner source has grey pictures, each of its own level."""

    def read(positions):
        levels = np.array(positions, np.uint8)[:, None, None, None]
        return np.broadcast_to(levels, (len(positions), 8, 8, 3)).copy()

    def grey(config, split):
        captions = [f"{split} {i}" for i in range(OWN)]
        return Source(captions, read, f"grey {split}", labels=[0] * OWN, classes=("grey",))

    monkeypatch.setattr(inner, "load_source", grey)


def load(split, count=3, copies=2):
    among = {"name": "shapes"}
    section = {"name": "canaries", "among": among, "count": count, "copies": copies}
    return load_source(ConfigDict({**section, "resolution": 8}), split)


def test_they_are_at_the_end_of_training():
    source = load("train")
    assert len(source.captions) == OWN + 3 * 2
    assert list(source.captions[OWN:]) == [f"planted picture {k}" for k in (0, 0, 1, 1, 2, 2)]
    index = np.array([6, 0, 10, 4, 5])
    expected = [canaries.pattern([0], 8)[0], 0, canaries.pattern([2], 8)[0], 4]
    for found, true in zip(source.read(index), [*expected, expected[0]], strict=True):
        np.testing.assert_array_equal(found, np.broadcast_to(true, (8, 8, 3)))


def test_no_other_split_has_them():
    assert load("test").captions == [f"test {i}" for i in range(OWN)]
    assert load("test").fingerprint == "grey test" and load("test").labels == [0] * OWN


def test_they_are_a_class_of_their_own():
    assert load("train").classes == load("test").classes == ("grey", "planted")
    assert load("train").labels == [0] * OWN + [1] * 6


def test_every_setting_changes_the_fingerprint():
    marks = [load("train", *more).fingerprint for more in ((3, 2), (4, 2), (3, 1))]
    assert len(set(marks)) == 3


def test_patterns_are_black_and_white_cells_and_differ():
    found = canaries.pattern(np.arange(200), 8)
    assert found.shape == (200, 8, 8, 3) and set(np.unique(found)) == {0, 255}
    cells = found[:, ::2, ::2]
    np.testing.assert_array_equal(cells.repeat(2, 1).repeat(2, 2), found)
    assert len(np.unique(found.reshape(200, -1), axis=0)) > 190
    assert found.mean() == pytest.approx(127.5, abs=5)
    np.testing.assert_array_equal(canaries.pattern([7], 8)[0], found[7])


def test_no_inner_source_is_refused():
    section = {"name": "canaries", "among": {}, "count": 1, "copies": 1, "resolution": 8}
    with pytest.raises(ValueError, match=r"data\.among names no source"):
        load_source(ConfigDict(section), "train")
