"""Likelihoods against SciPy, and probabilities that must add up to one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from t2i_jax.core.pictures import to_unit
from t2i_jax.models import likelihoods

LEVELS = np.asarray(to_unit(jnp.arange(256, dtype=jnp.uint8)))


@pytest.mark.parametrize("mean", [-1.7, -1.0, -0.3, 0.002, 1.0])
@pytest.mark.parametrize("log_scale", [-7.0, -4.0, -1.0, 2.0])
def test_logistic_is_the_probability_of_each_of_256_levels(mean, log_scale):
    nats = jax.jit(likelihoods.logistic)(LEVELS, mean, log_scale)
    np.testing.assert_allclose(np.exp(np.asarray(nats, float)).sum(), 1.0, rtol=2e-4)
    edges = np.concatenate([[-np.inf], LEVELS[:-1].astype(float) + 1 / 255, [np.inf]])
    expected = np.diff(stats.logistic.cdf(edges, mean, np.exp(log_scale)))
    likely = expected > 1e-5  # the reference loses its digits to cancellation in the tails
    np.testing.assert_allclose(
        np.exp(nats)[likely], expected[likely], rtol=2e-2 if log_scale == -7 else 2e-3
    )


def test_logistic_has_finite_gradients_far_away():
    gradient = jax.jit(jax.grad(lambda args: likelihoods.logistic(LEVELS, *args).sum()))(
        (jnp.float32(40.0), jnp.float32(-7.0))
    )
    assert all(np.isfinite(gradient)) and gradient[0] < 0  # nearer is likelier


def test_gaussian_and_bernoulli_against_scipy():
    r = np.random.default_rng(0)
    x, location, log_scale = r.uniform(-1, 1, 50), r.normal(size=50), r.normal(size=50)
    np.testing.assert_allclose(
        likelihoods.gaussian(x, location, log_scale),
        stats.norm.logpdf(x, location, np.exp(log_scale)),
        rtol=1e-4,
        atol=1e-5,
    )
    black_or_white = np.where(x > 0, 1.0, -1.0)
    probability = 1 / (1 + np.exp(-location))
    np.testing.assert_allclose(
        likelihoods.bernoulli(black_or_white, location),
        stats.bernoulli.logpmf(black_or_white > 0, probability),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        likelihoods.load("bernoulli").picture(location), 2 * probability - 1, atol=1e-6
    )


def test_bits_per_dimension_of_equally_probable_levels():
    """256 equally probable levels are 8 bits.

    For a density of 1 / 2 on [-1, 1], which is 255 steps wide, they are log2(255) bits.
    """
    nats = jnp.array([12 * np.log(256.0)])
    np.testing.assert_allclose(
        likelihoods.bits_per_dimension(likelihoods.load("logistic"), nats, 12), 8.0, rtol=1e-6
    )
    flat = jnp.array([12 * np.log(2.0)])
    np.testing.assert_allclose(
        likelihoods.bits_per_dimension(likelihoods.load("gaussian"), flat, 12),
        np.log2(255),
        rtol=1e-6,
    )


def test_an_unknown_likelihood_raises_an_error():
    with pytest.raises(
        ValueError, match="no likelihood 'poisson': there are bernoulli, gaussian, logistic"
    ):
        likelihoods.load("poisson")
