"""Conversions of pictures: uint8 and [-1, 1], grey and colour."""

import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.pictures import from_unit, to_channels, to_rgb, to_unit


def test_pixels_round_trip():
    values = jnp.arange(256, dtype=jnp.uint8)
    np.testing.assert_array_equal(from_unit(to_unit(values)), values)
    np.testing.assert_array_equal(from_unit(jnp.array([-3.0, 3.0])), [0, 255])
    assert float(to_unit(jnp.uint8(0))) == -1.0 and float(to_unit(jnp.uint8(255))) == 1.0


def test_grey_and_colour():
    x = jnp.arange(24.0).reshape(2, 2, 2, 3)
    assert to_channels(x, 3) is x
    grey = to_channels(x, 1)
    np.testing.assert_array_equal(grey, x[..., 1:2])  # the mean of three successive numbers
    np.testing.assert_array_equal(to_rgb(grey), np.repeat(grey, 3, axis=-1))
    np.testing.assert_array_equal(to_rgb(x), x)
    with pytest.raises(
        ValueError, match=r"channels is 2: pictures have 3 \(colour\) or 1 \(grey\)"
    ):
        to_channels(x, 2)
