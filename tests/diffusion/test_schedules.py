"""Schedules against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.diffusion import schedules
from t2i_jax.diffusion.schedules import SCHEDULES, log_snr, make_schedule, make_time, shift

TIMES = jnp.linspace(0.0, 1.0, 101)


@pytest.mark.parametrize("name", SCHEDULES)
def test_from_data_to_noise(name):
    c = make_schedule(name)(TIMES)
    assert c.alpha[0] == 1.0 and c.sigma[0] == 0.0
    np.testing.assert_allclose(c.sigma[-1], 1.0, atol=3e-5)
    np.testing.assert_allclose(c.alpha[-1], 0.006572 if name == "linear_beta" else 0.0, atol=1e-6)
    assert (jnp.diff(c.alpha) < 0).all() and (jnp.diff(c.sigma) >= 0).all() and (c.alpha >= 0).all()
    if name != "rectified":
        np.testing.assert_allclose(c.alpha**2 + c.sigma**2, 1.0, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_velocity_is_the_scaled_derivative(name):
    """alpha q - sigma p = 1 and (p, q) is parallel to (alpha', sigma')."""
    t = TIMES[1:]
    c, rate = jax.jvp(make_schedule(name), (t,), (jnp.ones_like(t),))
    np.testing.assert_allclose(c.alpha * c.velocity_noise - c.sigma * c.velocity_x0, 1.0, atol=1e-6)
    pace = c.alpha * rate.sigma - c.sigma * rate.alpha
    assert (pace > 0).all()
    np.testing.assert_allclose(rate.alpha, pace * c.velocity_x0, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(rate.sigma, pace * c.velocity_noise, atol=1e-5, rtol=1e-5)


def test_linear_beta_is_the_limit_of_ddpm():
    """With n steps of beta_i = beta(i / n) / n, alpha² is nearly the product of 1 - beta_i."""
    n = 100_000
    betas = (0.1 + (20 - 0.1) * (np.arange(n) + 0.5) / n) / n
    products = np.cumprod(1.0 - betas)[[n // 10 - 1, n // 2 - 1]]
    np.testing.assert_allclose(
        schedules.linear_beta(jnp.array([0.1, 0.5])).alpha ** 2, products, rtol=2e-3
    )


def test_log_snr():
    half = jnp.array(0.5)
    np.testing.assert_allclose(log_snr(schedules.cosine(half)), 0.0, atol=1e-6)
    np.testing.assert_allclose(
        log_snr(schedules.rectified(jnp.array(0.2))), 2 * np.log(4.0), rtol=1e-6
    )
    for schedule in SCHEDULES.values():
        values = log_snr(schedule(TIMES))
        assert jnp.isfinite(values).all() and (jnp.diff(values) < 0).all()


def test_shift():
    np.testing.assert_array_equal(shift(jnp.array([0.0, 1.0]), 3.0), [0.0, 1.0])
    np.testing.assert_allclose(shift(jnp.array(0.5), 3.0), 0.75)
    np.testing.assert_allclose(shift(shift(TIMES, 2.0), 1.5), shift(TIMES, 3.0), rtol=1e-6)
    np.testing.assert_allclose(shift(TIMES, 1.0), TIMES)
    inner = TIMES[1:-1]
    before, after = schedules.rectified(inner), schedules.rectified(shift(inner, 3.0))
    np.testing.assert_allclose(
        before.alpha / before.sigma, 3.0 * after.alpha / after.sigma, rtol=1e-4
    )


def test_time_distributions():
    keys = jax.random.split(jax.random.key(0), 20_000)
    t = jax.vmap(make_time("uniform"))(keys)
    np.testing.assert_allclose([t.mean(), t.var()], [1 / 2, 1 / 12], atol=0.01)
    t = jax.vmap(lambda key: make_time("logit_normal")(key, 0.7, 1.5))(keys)
    logits = jnp.log(t) - jnp.log1p(-t)
    np.testing.assert_allclose([logits.mean(), logits.std()], [0.7, 1.5], atol=0.04)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"'cosin'.*rectified, cosine, linear_beta"):
        make_schedule("cosin")
    with pytest.raises(ValueError, match="uniform, logit_normal"):
        make_time("normal")
