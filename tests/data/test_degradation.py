"""Bicubic interpolation against Pillow's, the blur against SciPy's, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from t2i_jax.data.degradation import blur, enlarge, shrink

PICTURES = np.random.default_rng(0).uniform(-1, 1, (2, 12, 24, 3)).astype(np.float32)


def by_pillow(x, height, width):
    def resize(channel):
        image = Image.fromarray(channel)
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))

    return np.stack([np.stack([resize(y[..., c]) for c in range(3)], -1) for y in x])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_interpolation_is_that_of_pillow(scale):
    small = by_pillow(PICTURES, 12 // scale, 24 // scale)
    np.testing.assert_allclose(shrink(PICTURES, scale), small, atol=1e-5)
    large = by_pillow(PICTURES, 12 * scale, 24 * scale)
    np.testing.assert_allclose(enlarge(PICTURES, scale), large, atol=1e-5)


def test_a_scale_that_does_not_divide_the_sides_is_refused():
    with pytest.raises(ValueError, match=r"24 x 12 px cannot be made 5 times smaller"):
        shrink(PICTURES, 5)


def test_the_blur_is_gaussian_and_differs_for_each_picture():
    keys = jax.random.split(jax.random.key(1), 2)
    found = blur(PICTURES, keys, 1.5)
    sigmas = [float(jax.random.uniform(key, (), maxval=1.5)) for key in keys]
    assert abs(sigmas[0] - sigmas[1]) > 0.1
    for x, y, sigma in zip(PICTURES, found, sigmas, strict=True):
        expected = gaussian_filter(x, (sigma, sigma, 0), mode="nearest", radius=(5, 5, 0))
        np.testing.assert_allclose(y, expected, atol=1e-5)
    swapped = blur(PICTURES[::-1], keys[jnp.array([1, 0])], 1.5)
    np.testing.assert_allclose(swapped, found[::-1], atol=1e-6)
