"""Tables of noise levels, and the schedules that they become."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.diffusion import tables
from t2i_jax.diffusion.schedules import cosine, log_snr

SIGNAL = tables.signal(tables.betas("scaled_linear", 1000, 0.00085, 0.012))


def test_betas():
    np.testing.assert_allclose(tables.betas("linear", 3, 0.1, 0.3), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(tables.betas("scaled_linear", 3, 0.01, 0.09), [0.01, 0.04, 0.09])
    betas = tables.betas("squaredcos_cap_v2", 1000)
    assert betas[-1] == 0.999
    # Nearly our cosine, which has no offset of 0.008.
    signal = tables.signal(betas)[[99, 499, 899]]
    np.testing.assert_allclose(signal, cosine(jnp.array([0.1, 0.5, 0.9])).alpha ** 2, atol=0.02)
    with pytest.raises(ValueError, match=r"'scaled_liner'.*did you mean 'scaled_linear'"):
        tables.betas("scaled_liner")


def test_signal():
    np.testing.assert_allclose(tables.signal(np.array([0.5, 0.5, 0.75])), [0.5, 0.25, 0.0625])
    np.testing.assert_allclose(tables.ratios(np.array([0.5, 0.2])), [1, 2])


def test_zero_terminal_snr():
    moved = tables.zero_terminal_snr(SIGNAL)
    assert moved[-1] == 0 and moved[0] == pytest.approx(SIGNAL[0])
    # The square roots are moved and scaled: their differences keep their proportions.
    before, after = np.diff(np.sqrt(SIGNAL)), np.diff(np.sqrt(moved))
    np.testing.assert_allclose(after / before, after[0] / before[0])
    assert tables.zero_terminal_snr(SIGNAL, 0.25)[-1] == 0.25


def test_the_table_is_met():
    schedule, times = tables.table(SIGNAL), jnp.arange(0, 1001) / 1000
    c = jax.jit(schedule)(times)
    np.testing.assert_allclose(c.alpha[1:] ** 2, SIGNAL, rtol=2e-6)
    np.testing.assert_allclose(c.alpha**2 + c.sigma**2, 1.0, atol=1e-6)
    assert c.alpha[0] == 1 and c.sigma[0] == 0
    np.testing.assert_array_equal(c.velocity_x0, -c.sigma)
    np.testing.assert_array_equal(c.velocity_noise, c.alpha)


def test_between_the_points():
    schedule = tables.table(SIGNAL)
    low, middle, high = (log_snr(schedule(jnp.array(t))) for t in (0.4, 0.4005, 0.401))
    np.testing.assert_allclose(middle, (low + high) / 2, rtol=1e-4)
    c, first = schedule(jnp.array(0.0005)), schedule(jnp.array(0.001))
    np.testing.assert_allclose(c.sigma / c.alpha, first.sigma / first.alpha / 2, rtol=1e-5)


def test_zero_signal_is_nothing_but_noise():
    c = tables.table(tables.zero_terminal_snr(SIGNAL))(jnp.array([0.999, 1.0]))
    assert c.alpha[1] < 1e-7 and c.sigma[1] > 1 - 1e-6
    assert jnp.isfinite(log_snr(c)).all()


def test_refused():
    for signal in ([0.5, 0.6], [1.0, 0.5], [0.5, -0.1]):
        with pytest.raises(ValueError, match="must fall"):
            tables.table(np.array(signal))
