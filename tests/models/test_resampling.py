"""The convolutions of StyleGAN2: what they keep, and closed forms."""

import functools

import jax
import numpy as np
import pytest

from t2i_jax.models import resampling as r


def normal(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("operation", [r.conv, r.conv_up, r.conv_down])
def test_demodulation(operation):
    """For any style, inputs of variance 1 give outputs of variance 1 (apart from FIR).

    The size of the style has no influence.
    """
    x, style, kernel = normal(16, 12, 12, 24), np.exp(normal(16, 24)), 5.0 * normal(3, 3, 24, 16)
    run = jax.jit(functools.partial(r.modulated_conv, operation=operation))
    y = np.asarray(run(x, kernel, style))
    np.testing.assert_allclose(run(x, kernel, 7.0 * style), y, atol=1e-4)
    if operation is r.conv:
        per_output = np.square(y[:, 1:-1, 1:-1]).mean((0, 1, 2))
        np.testing.assert_allclose(per_output.mean(), 1.0, rtol=0.03)
        np.testing.assert_allclose(per_output, 1.0, rtol=0.2)
        # Without demodulation, a style seven times as large gives outputs seven times as large.
        run = jax.jit(functools.partial(r.modulated_conv, demodulate=False))
        plain = np.asarray(run(x, kernel, style))
        np.testing.assert_allclose(run(x, kernel, 7.0 * style), 7.0 * plain, rtol=1e-4, atol=1e-2)
        assert np.square(plain).mean() > 100


@pytest.mark.parametrize("operation", [r.conv, r.conv_up, r.conv_down])
def test_modulated_conv_equals_a_convolution_with_modulated_weights(operation):
    """Equations 1 and 3 as written, with one kernel per example."""
    x, style, kernel = normal(3, 6, 6, 4), normal(3, 4), normal(3, 3, 4, 5)
    weights = np.asarray(kernel)[None] * np.asarray(style)[:, None, None, :, None]
    weights = weights / np.sqrt(np.square(weights).sum((1, 2, 3), keepdims=True) + 1e-8)
    run = jax.jit(operation)
    expected = [run(x[i : i + 1], weights[i])[0] for i in range(3)]
    found = jax.jit(functools.partial(r.modulated_conv, operation=operation))(x, kernel, style)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_resampling_keeps_constants_and_means():
    """`inside` has a margin of zeros, so that nothing of it is blurred across the border."""
    constant = np.ones((2, 8, 8, 3), np.float32) * np.float32([1.0, -3.0, 0.5])
    inside = np.pad(normal(2, 6, 6, 3), ((0, 0), (1, 1), (1, 1), (0, 0)))
    pixel = np.zeros((2, 8, 8, 3), np.float32)
    pixel[:, 1, 2] = 1.0
    up, down = jax.jit(r.upsample), jax.jit(r.downsample)
    assert up(constant).shape == (2, 16, 16, 3) and down(constant).shape == (2, 4, 4, 3)
    np.testing.assert_allclose(
        up(constant)[:, 1:-1, 1:-1],
        np.broadcast_to(constant[:1, :1, :1], (2, 14, 14, 3)),
        rtol=1e-6,
    )
    np.testing.assert_allclose(down(constant)[:, 1:-1, 1:-1], constant[:, :2, :2], rtol=1e-6)
    np.testing.assert_allclose(
        jax.jit(r.downsample)(up(constant))[:, 1:-1, 1:-1], constant[:, :6, :6], rtol=1e-6
    )
    np.testing.assert_allclose(np.mean(up(inside), (1, 2)), np.mean(inside, (1, 2)), atol=1e-6)
    np.testing.assert_allclose(np.mean(down(inside), (1, 2)), np.mean(inside, (1, 2)), atol=1e-6)
    # One pixel becomes the outer product of the filter with itself.
    spread = np.asarray(up(pixel))[0, :, :, 0]
    np.testing.assert_allclose(spread[1:5, 3:7], 4 * np.outer(r.FIR, r.FIR), atol=1e-6)
    np.testing.assert_allclose(spread.sum(), 4.0, rtol=1e-6)


def test_a_kernel_of_one_tap_only_resamples():
    x = normal(2, 8, 8, 3)
    up, down = jax.jit(r.conv_up), jax.jit(r.conv_down)
    centre, corner = np.zeros((2, 3, 3, 3, 3), np.float32)
    centre[1, 1] = corner[0, 0] = np.eye(3)
    plain = np.asarray(jax.jit(r.upsample)(x))
    np.testing.assert_allclose(up(x, centre), plain, atol=1e-5)
    # Off the centre, the result is shifted by one pixel of the fine grid, because kernels are
    # correlated, as in `conv`.
    np.testing.assert_allclose(np.asarray(up(x, corner))[:, 1:, 1:], plain[:, :-1, :-1], atol=1e-5)
    np.testing.assert_allclose(down(x, centre), jax.jit(r.downsample)(x), atol=1e-5)
