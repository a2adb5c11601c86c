"""The box that hides an object."""

import numpy as np
import pytest

from t2i_jax.data.render import BACKGROUND, draw, mask
from t2i_jax.metrics.inpainting import box_around


def test_a_box_is_grown_by_a_border_and_to_the_grid():
    covered = np.zeros((32, 32), bool)
    covered[9, 5:12] = covered[10, 5] = True
    box = box_around(covered, 4)  # rows 8..11, columns 4..12 with the border
    expected = np.zeros((32, 32), bool)
    expected[8:12, 4:16] = True
    np.testing.assert_array_equal(box, expected)
    np.testing.assert_array_equal(box_around(covered, 1)[8:12, 4:13], True)
    assert box_around(covered, 1).sum() == 4 * 9


def test_a_box_stays_inside_the_picture():
    corner = np.zeros((8, 8), bool)
    corner[7, 0] = True
    assert np.argwhere(box_around(corner, 4)).tolist() == [
        [row, column] for row in range(4, 8) for column in range(4)
    ]
    with pytest.raises(ValueError, match="nothing to hide"):
        box_around(np.zeros((8, 8), bool), 4)


def test_nothing_of_the_object_is_left():
    each = [("large", "red", "star", 50, 61)]
    hidden = box_around(mask(each, 32), 4)
    assert (draw(each, 32)[~hidden] == BACKGROUND).all()
