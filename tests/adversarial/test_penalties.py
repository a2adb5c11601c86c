"""Penalties in closed form on linear and quadratic functions, and their gradients by parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.adversarial import penalties

R = np.random.default_rng(0)
X = jnp.asarray(R.normal(size=(4, 3, 3, 2)), jnp.float32)
A = jnp.asarray(R.normal(size=(3, 3, 2)), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 4)


def linear(a):
    return lambda x: (a * x).sum((1, 2, 3))


def quadratic(scale):
    return lambda x: 0.5 * scale * (x**2).sum((1, 2, 3))


def test_r1_and_its_gradient_by_parameters():
    """For a . x it is |a|² / 2, with gradient a; for s |x|² / 2 it is s² |x|² / 2."""
    np.testing.assert_allclose(
        penalties.r1(linear(A), X), np.full(4, 0.5 * (A**2).sum()), rtol=1e-6
    )
    np.testing.assert_allclose(
        jax.grad(lambda a: penalties.r1(linear(a), X).mean())(A), A, rtol=1e-6
    )
    square = (X**2).sum((1, 2, 3))
    np.testing.assert_allclose(penalties.r1(quadratic(3.0), X), 4.5 * square, rtol=1e-5)
    slope = jax.grad(lambda s: penalties.r1(quadratic(s), X).sum())(3.0)
    np.testing.assert_allclose(slope, 3.0 * square.sum(), rtol=1e-5)


def test_gradient_penalty_of_linear_and_quadratic():
    norm = jnp.sqrt((A**2).sum())
    np.testing.assert_allclose(
        penalties.gradient_penalty(linear(A), X, -X, KEYS), np.full(4, (norm - 1) ** 2), rtol=1e-5
    )
    np.testing.assert_allclose(
        penalties.gradient_penalty(linear(A / norm), X, -X, KEYS), np.zeros(4), atol=1e-10
    )
    gradient = jax.grad(lambda a: penalties.gradient_penalty(linear(a), X, -X, KEYS).mean())(A)
    np.testing.assert_allclose(gradient, 2 * (norm - 1) * A / norm, rtol=1e-5)
    # The gradient of |x|² / 2 is the place itself. It lies between real and fake.
    # It depends only on the example's own key.
    real, fake = jnp.ones_like(X), jnp.zeros_like(X)
    place = (
        1 - jnp.sqrt(penalties.gradient_penalty(quadratic(1.0), real / 18**0.5, fake, KEYS))
    ).clip(0)
    assert (place > 0).all() and (place < 1).all() and place.std() > 0.05
    alone = penalties.gradient_penalty(quadratic(1.0), real[:1], fake[:1], KEYS[2:3])
    np.testing.assert_allclose(
        penalties.gradient_penalty(quadratic(1.0), real, fake, KEYS)[2:3], alone, rtol=1e-6
    )


def test_gradient_penalty_of_a_constant_has_no_nan():
    """A dead network has gradient zero, whose norm has no derivative."""
    value, slope = jax.value_and_grad(
        lambda s: penalties.gradient_penalty(quadratic(s), X, -X, KEYS).sum()
    )(0.0)
    np.testing.assert_allclose(value, 4.0, rtol=1e-5)
    assert np.isfinite(slope)


def test_path_length_of_a_linear_generator():
    """Pictures s U w with orthonormal U have the length s |U' y|, with y the noise over sqrt(H W).

    The mean of its square is s² D / (H W).
    """
    count, h, w, d = 4096, 4, 2, 3
    basis = jnp.asarray(np.linalg.qr(R.normal(size=(h * w * 2, d)))[0], jnp.float32)
    keys = jax.random.split(jax.random.key(1), count)
    latent = jnp.zeros((count, d))

    def synthesize(scale):
        return lambda latent: scale * (latent @ basis.T).reshape(-1, h, w, 2)

    penalty, lengths = penalties.path_length(synthesize(2.0), latent, keys, 0.5)
    np.testing.assert_allclose(penalty, (lengths - 0.5) ** 2, rtol=1e-6)
    np.testing.assert_allclose((lengths**2).mean(), 4.0 * d / (h * w), rtol=0.05)
    # Twice the scale gives twice the length. The derivative of the penalty by the scale is
    # 2 (length - mean) length / scale.
    np.testing.assert_allclose(
        penalties.path_length(synthesize(4.0), latent, keys, 0.5)[1], 2 * lengths, rtol=1e-5
    )

    def mean_penalty(scale):
        return penalties.path_length(synthesize(scale), latent, keys, 0.5)[0].mean()

    slope = jax.grad(mean_penalty)(2.0)
    np.testing.assert_allclose(slope, ((lengths - 0.5) * lengths).mean(), rtol=1e-4)
    # With layers, each row of w has its own gradient; the length is their root mean square.
    three = penalties.path_length(
        lambda w: synthesize(2.0)(w.sum(1)), jnp.zeros((count, 3, d)), keys, 0.5
    )[1]
    np.testing.assert_allclose(three, lengths, rtol=1e-5)
    np.testing.assert_allclose(
        penalties.path_length(synthesize(2.0), latent[:2], keys[5:7], 0.5)[1],
        lengths[5:7],
        rtol=1e-5,
    )
