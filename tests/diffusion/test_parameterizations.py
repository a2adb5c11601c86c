"""Every parameterization to every other and back, on every schedule."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.diffusion import parameterizations as p
from t2i_jax.diffusion.schedules import SCHEDULES, cosine, log_snr, rectified

PAIRS = list(itertools.product(p.KINDS, p.KINDS))
ONE = jnp.ones(())


def _data(schedule, times):
    x0, noise = np.random.default_rng(0).normal(size=(2, len(times), 16)).astype(np.float32)
    c = schedule(jnp.asarray(times, jnp.float32)[:, None])
    return x0, noise, c.alpha * x0 + c.sigma * noise, c


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("kind", "to"), PAIRS)
def test_conversions_agree_with_the_targets(name, kind, to):
    """A perfect prediction of one kind is a perfect one of any other.

    Float32 loses about 1e-7 / (alpha or sigma).
    """
    x0, noise, x_t, c = _data(SCHEDULES[name], [0.01, 0.1, 0.5, 0.9, 0.99])
    prediction = p.target(kind, x0, noise, c)
    converted = p.convert(kind, to, prediction, x_t, c)
    np.testing.assert_allclose(converted, p.target(to, x0, noise, c), atol=1e-4)
    np.testing.assert_allclose(p.convert(to, kind, converted, x_t, c), prediction, atol=2e-4)
    np.testing.assert_allclose(p.to_x0(kind, prediction, x_t, c), x0, atol=1e-4)
    np.testing.assert_allclose(p.to_noise(kind, prediction, x_t, c), noise, atol=1e-4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_any_wrong_prediction_survives_the_cycle(name):
    """The equations hold for what a network really predicts, not only for perfect predictions."""
    _, _, x_t, c = _data(SCHEDULES[name], [0.05, 0.5, 0.95])
    prediction = jnp.sin(jnp.arange(48.0)).reshape(3, 16)
    for kind, to in PAIRS:
        back = p.convert(to, kind, p.convert(kind, to, prediction, x_t, c), x_t, c)
        np.testing.assert_allclose(back, prediction, atol=1e-4, err_msg=f"{kind} to {to}")
        x0, noise = p.to_x0(kind, prediction, x_t, c), p.to_noise(kind, prediction, x_t, c)
        np.testing.assert_allclose(c.alpha * x0 + c.sigma * noise, x_t, atol=1e-4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_at_the_very_ends_nothing_divides_by_zero(name):
    x0, noise, x_t, c = _data(SCHEDULES[name], [0.0, 1.0])
    for kind, to in PAIRS:
        assert jnp.isfinite(p.convert(kind, to, p.target(kind, x0, noise, c), x_t, c)).all()
    for to, truth in (("x0", x0), ("noise", noise)):  # the velocity is exact there
        np.testing.assert_allclose(
            p.convert("velocity", to, p.target("velocity", x0, noise, c), x_t, c), truth, atol=1e-5
        )
    for name in p.WEIGHTINGS:
        assert all(jnp.isfinite(p.weight(name, kind, c)).all() for kind in p.KINDS)


def test_velocities():
    x0, noise, _, c = _data(rectified, [0.3])
    np.testing.assert_allclose(p.target("velocity", x0, noise, c), noise - x0)
    x0, noise, _, c = _data(cosine, [0.3])
    np.testing.assert_allclose(
        p.target("velocity", x0, noise, c), c.alpha * noise - c.sigma * x0, atol=1e-6
    )


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("kind", "on"), PAIRS)
def test_weighting_is_the_other_error(name, kind, on):
    """weight(on, kind) times the squared error of `kind` is the squared error of `on`.

    That holds for any prediction.
    """
    x0, noise, x_t, c = _data(SCHEDULES[name], [0.2, 0.4, 0.6])
    truth = p.target(kind, x0, noise, c)
    prediction = truth + jnp.cos(jnp.arange(48.0)).reshape(3, 16)
    other = p.convert(kind, on, prediction, x_t, c) - p.target(on, x0, noise, c)
    np.testing.assert_allclose(
        p.weight(on, kind, c) * (prediction - truth) ** 2, other**2, rtol=2e-3, atol=2e-4
    )


def test_published_weights():
    c = cosine(jnp.array([0.05, 0.5, 0.9]))
    snr = jnp.exp(log_snr(c))
    np.testing.assert_allclose(p.weight("uniform", "x0", c), 1.0)
    np.testing.assert_allclose(
        p.weight("min_snr", "noise", c), jnp.minimum(snr, 5) / snr, rtol=1e-4
    )  # 2303.09556
    np.testing.assert_allclose(
        p.weight("min_snr", "velocity", c), jnp.minimum(snr, 5) / (snr + 1), rtol=1e-4
    )
    np.testing.assert_allclose(
        p.weight("sigmoid", "noise", c), jax.nn.sigmoid(2 - log_snr(c)), rtol=1e-4
    )
    edge = rectified(jnp.array([0.0, 0.02, 0.05, 0.5]))
    np.testing.assert_allclose(p.weight("velocity", "x0", edge), [400, 400, 400, 4], rtol=1e-4)


def test_unknown_names():
    c = cosine(jnp.array(0.5))
    for call in (
        lambda: p.target("epsilon", ONE, ONE, c),
        lambda: p.to_x0("epsilon", ONE, ONE, c),
        lambda: p.weight("x0", "epsilon", c),
    ):
        with pytest.raises(ValueError, match=r"'epsilon'.*x0, noise, velocity"):
            call()
    with pytest.raises(ValueError, match="there is no weighting 'snr'"):
        p.weight("snr", "x0", c)
