"""PSNR over noise: a model whose answer is known, and noise of a known size."""

import numpy as np
import pytest

from t2i_jax.metrics import denoising

GREY = np.full((8, 40, 40, 3), 128, np.uint8)


def test_grain_has_the_size_it_says_and_keeps_grey_pictures_grey():
    noisy = denoising.grain(GREY, 0, 20.0).astype(float)
    np.testing.assert_allclose(noisy.std(), np.sqrt(20.0**2 + 1 / 12), rtol=0.02)
    assert (noisy == noisy[..., :1]).all()
    colour = GREY.copy()
    colour[..., 0] = 100
    assert (np.diff(denoising.grain(colour, 0, 20.0).astype(int) - colour, axis=-1) != 0).any()
    np.testing.assert_array_equal(denoising.grain(GREY[:3], 0, 20.0), noisy[:3])


def test_curve_of_models_whose_psnr_is_known():
    curve = denoising.psnr_curve(lambda x: np.full_like(x, 138), GREY, levels=(4.0, 16.0))
    assert curve["sigma"] == [0.0, 4.0, 16.0]
    # This model gives the same answer for any noise.
    np.testing.assert_allclose(curve["reconstructed"], 20 * np.log10(255 / 10), rtol=1e-6)
    assert curve["noisy"][0] == denoising.MAX_PSNR_DB
    np.testing.assert_allclose(
        curve["noisy"][1:], 20 * np.log10(255 / np.array([4.0, 16.0])), atol=0.15
    )
    same = denoising.psnr_curve(lambda x: x, GREY, levels=(4.0, 16.0))
    assert same["reconstructed"] == same["noisy"]
    with pytest.raises(ValueError, match="nothing to put noise on"):
        denoising.psnr_curve(lambda x: x, GREY[:0])
