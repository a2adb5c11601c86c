"""Shapes by their geometry, and pictures by their pixels."""

import numpy as np
import pytest

from t2i_jax.data.render import BACKGROUND, COLOURS, SHAPES, SIZES, UNITS, coverage, draw, mask

AREAS = {  # of the unit square, by geometry
    "circle": np.pi / 4,
    "square": 1.0,
    "triangle": 3**0.5 / 4,
    "star": 0.42 * 5 * np.sin(np.pi / 5) * (0.5 / np.sin(2 * np.pi / 5)) ** 2,
    "cross": 5 / 9,
    "ring": np.pi * (0.25 - 0.28**2),
}


def box(alpha):
    """Return width and height of what is covered, in pixels, with parts of pixels."""
    return alpha.max(0).sum(), alpha.max(1).sum()


@pytest.mark.parametrize("resolution", [32, 64])
@pytest.mark.parametrize("shape", SHAPES)
def test_areas_and_boxes_agree_with_geometry(shape, resolution):
    for size, part in SIZES.items():
        alpha, side = coverage(shape, size, resolution, 32, 64), part * resolution
        assert alpha.sum() == pytest.approx(AREAS[shape] * side**2, rel=0.03)
        # The others end in points and curves, which cover their last pixel only partly.
        if shape == "square":
            assert max(box(alpha)) == pytest.approx(side, rel=0.05)
        assert alpha.min() >= 0 and 0.85 < alpha.max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_the_longer_side_has_its_size_and_the_box_is_centred(shape):
    # At 512 px, where a pixel is less than the 5 % that are allowed.
    for size, part in SIZES.items():
        rows, columns = (
            np.flatnonzero(coverage(shape, size, 512).max(axis) > 0.5) for axis in (1, 0)
        )
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert max(height, width) == pytest.approx(part * 512, rel=0.05)
        middle = len(coverage(shape, size, 512)) // 2 - 0.5
        assert (
            abs((rows[0] + rows[-1]) / 2 - middle) <= 2
            and abs((columns[0] + columns[-1]) / 2 - middle) <= 2
        )


def test_triangle_and_star_point_up():
    for shape in ("triangle", "star"):
        wide = (coverage(shape, "large", 128) > 0.5).sum(1)
        assert 0 < wide[np.flatnonzero(wide)[0]] < 8  # the tip
    star = coverage("star", "large", 128)
    # Its own mirror image about a pixel's corner.
    np.testing.assert_allclose(star[:, :-1], star[:, -2::-1], atol=0.05)


def test_colours_background_and_place():
    image = draw([("small", "orange", "square", 40, 80), ("large", "cyan", "circle", 96, 40)], 32)
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    assert tuple(image[20, 10]) == COLOURS["orange"] and tuple(image[10, 24]) == COLOURS["cyan"]
    # 8 px about (10, 20): no edge is blended.
    assert (image[16:24, 6:14] == COLOURS["orange"]).all()
    rest = image.copy()
    rest[16:24, 6:14] = BACKGROUND
    rest[3:17, 17:31] = BACKGROUND
    assert (rest == BACKGROUND).all()


def test_a_quarter_of_a_pixel_moves_a_quarter_of_the_edge():
    # 1 / UNITS is a quarter of a pixel at 32 px.
    image = draw([("small", "white", "square", 41, 80)], 32)
    blend = (image[20, :, 0] - 20.0) / (245 - 20)
    assert UNITS == 128
    np.testing.assert_allclose(blend[5:16], [0, 0.75, 1, 1, 1, 1, 1, 1, 1, 0.25, 0], atol=0.005)


def test_the_same_scene_at_another_resolution_is_the_same_picture():
    objects = [("large", "red", "star", 50, 60), ("small", "blue", "ring", 100, 101)]
    fine, coarse = draw(objects, 128), draw(objects, 32)
    # 10 of 200 levels: the edges.
    np.testing.assert_allclose(fine.reshape(32, 4, 32, 4, 3).mean((1, 3)), coarse, atol=10)


def test_the_mask_of_objects_is_what_they_cover_at_least_half():
    """A quarter of a pixel off: the pixel that is covered by 0.75 is in, that by 0.25 is not."""
    objects = [("small", "white", "square", 41, 80), ("large", "red", "ring", 96, 40)]
    found = mask(objects, 32)
    assert found[20, 5:16].tolist() == [False, *[True] * 8, False, False]
    assert found[:, :16].sum() == 64, "8 rows of 8 pixels"
    alone = mask(objects[1:], 32)
    np.testing.assert_array_equal(found & ~alone, mask(objects[:1], 32))
    assert alone[:, 24].any() and not alone[10, 24], "the hole of the ring"
    fine = mask(objects[1:], 128)
    assert fine.sum() == pytest.approx(AREAS["ring"] * (0.38 * 128) ** 2, rel=0.03)
    assert not mask([], 32).any()
