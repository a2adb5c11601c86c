"""Similarities against scikit-image, in closed cases, and over levels of noise."""

import numpy as np
import pytest
from scipy.spatial.distance import cosine
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from t2i_jax.metrics.similarity import SCALE_EXPONENTS, ms_ssim, perceptual_distance, psnr, ssim

RNG = np.random.default_rng(0)
BLOCK = np.ones((1, 8, 8, 1))
LOW = np.kron(RNG.integers(0, 256, (4, 6, 7, 3)), BLOCK).astype(np.uint8)  # 48 x 56 px
LARGE = np.kron(RNG.integers(0, 256, (2, 23, 22, 3)), BLOCK).astype(np.uint8)  # 184 x 176 px


def noisy(pictures, level, seed=1):
    noise = np.random.default_rng(seed).normal(size=pictures.shape) * level
    return np.clip(np.rint(pictures + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("level", [0.5, 10, 100])
def test_psnr_and_ssim_are_those_of_scikit_image(level):
    other = noisy(LOW, level)
    settings = dict(
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=-1,
        data_range=255,
    )
    expected = [structural_similarity(a, b, **settings) for a, b in zip(LOW, other, strict=True)]
    np.testing.assert_allclose(ssim(LOW, other), expected, rtol=1e-9)
    expected = [peak_signal_noise_ratio(a, b) for a, b in zip(LOW, other, strict=True)]
    np.testing.assert_allclose(psnr(LOW, other), expected, rtol=1e-9)


def test_closed_cases():
    black, grey, white = (np.full((1, 11, 12, 3), level, np.uint8) for level in (0, 127, 255))
    assert psnr(black, white) == pytest.approx(0)
    assert psnr(grey, grey + np.uint8(1)) == pytest.approx(20 * np.log10(255))
    assert np.isposinf(psnr(LOW, LOW)).all()
    c1 = 2.55**2
    assert ssim(black, white) == pytest.approx(c1 / (255**2 + c1))  # only the luminance differs
    negative = (255 - LOW).astype(np.uint8)
    assert (ssim(LOW, negative) < 0.1).all()


def test_equal_pictures_are_at_one_and_noise_lowers_it():
    assert ms_ssim(LARGE, LARGE) == pytest.approx([1, 1])
    assert ssim(LARGE, LARGE) == pytest.approx([1, 1])
    for measure in (ssim, ms_ssim, psnr):
        curve = np.array([measure(LARGE, noisy(LARGE, level)) for level in (1, 5, 20, 60, 150)])
        assert (np.diff(curve, axis=0) < 0).all()
        np.testing.assert_allclose(
            measure(LARGE, noisy(LARGE, 9)), measure(noisy(LARGE, 9), LARGE), rtol=1e-12
        )


def test_scales_are_multiplied():
    halves = LARGE[:, ::2, ::2], noisy(LARGE[:, ::2, ::2], 30)
    a, b = (half.repeat(2, 1).repeat(2, 2) for half in halves)  # halving them gives `halves` back
    np.testing.assert_allclose(ms_ssim(a, b, (0.0, 1.0)), ssim(*halves), rtol=1e-12)
    odd = ms_ssim(a[:, :-1], b[:, :-1], (0.0, 1.0))
    np.testing.assert_allclose(odd, ssim(*(half[:, :-1] for half in halves)), rtol=1e-12)
    np.testing.assert_allclose(ms_ssim(a, b, (1.0,)), ssim(a, b), rtol=1e-12)
    # All channels are equal, so that a product of means is a mean of products.
    grey = [x[..., :1].repeat(3, -1) for x in (a, b)]
    first, last = ms_ssim(*grey, (0.3, 0.0)), ms_ssim(*grey, (0.0, 0.7))
    np.testing.assert_allclose(ms_ssim(*grey, (0.3, 0.7)), first * last, rtol=1e-12)


def test_a_shift_of_brightness_is_forgiven_by_all_scales_but_the_last():
    light = (LARGE // 2 + 60).astype(np.uint8)
    dark = (LARGE // 2 + 20).astype(np.uint8)
    assert sum(SCALE_EXPONENTS) == pytest.approx(1, abs=2e-4)
    assert (ms_ssim(light, dark) > ssim(light, dark)).all()
    # Negative structure has no fractional power.
    assert (ms_ssim(LARGE, (255 - LARGE).astype(np.uint8)) == 0).all()


def test_bad_pictures_are_named():
    for measure in (psnr, ssim, ms_ssim):
        with pytest.raises(ValueError, match=r"uint8 \[N, H, W, 3\], these are float64"):
            measure(LARGE / 255, LARGE)
        with pytest.raises(ValueError, match=r"these are uint8 \[2, 184, 176, 1\]"):
            measure(LARGE, LARGE[..., :1])
        with pytest.raises(ValueError, match=r"\[2, 184, 176, 3\] and \[2, 183, 176, 3\]"):
            measure(LARGE, LARGE[:, 1:])
    with pytest.raises(
        ValueError,
        match="175 x 184 px are too small: 5 scales of an 11 px window need 176 px a side",
    ):
        ms_ssim(LARGE[:, :, 1:], LARGE[:, :, 1:])
    with pytest.raises(ValueError, match="1 scale of an 11 px window need 11 px"):
        ssim(LOW[:, :10], LOW[:, :10])


def test_perceptual_distance():
    a = [RNG.normal(size=(3, 4, 5, 6)), RNG.normal(size=(3, 2, 2, 8))]
    b = [RNG.normal(size=(3, 4, 5, 6)), RNG.normal(size=(3, 2, 2, 8))]
    expected = [
        sum(
            np.mean([2 * cosine(x[i][y], z[i][y]) for y in np.ndindex(x.shape[1:3])])
            for x, z in zip(a, b, strict=True)
        )
        for i in range(3)
    ]
    np.testing.assert_allclose(perceptual_distance(a, b), expected, rtol=1e-12)
    np.testing.assert_allclose(perceptual_distance([5 * x for x in a], b), expected, rtol=1e-12)
    np.testing.assert_array_equal(perceptual_distance(a, a), 0)
    only = [np.eye(6)[2] * 3, np.zeros(8)]
    turned = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a[0], b[0])]
    expected = 3 * ((turned[0] - turned[1])[..., 2] ** 2).mean((1, 2))
    np.testing.assert_allclose(perceptual_distance(a, b, only), expected, rtol=1e-12)
    zero, one = [np.zeros((1, 2, 2, 3))], [np.ones((1, 2, 2, 3))]
    assert perceptual_distance(zero, one) == pytest.approx([1])


def test_bad_maps_are_named():
    maps = [np.ones((3, 4, 5, 6))]
    with pytest.raises(ValueError, match="1 and 2 layers of features, and weights for 1"):
        perceptual_distance(maps, maps * 2)
    with pytest.raises(ValueError, match=r"layer 0: .* weights of \[c\], they are .* and \[5\]"):
        perceptual_distance(maps, maps, [np.ones(5)])
    with pytest.raises(ValueError, match="layer 0 of the feature maps holds NaN"):
        perceptual_distance(maps, [maps[0] * np.nan])
