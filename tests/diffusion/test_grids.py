"""Time grids against their closed forms and published examples."""

import numpy as np
import pytest

from t2i_jax.diffusion import grids, tables
from t2i_jax.diffusion.samplers import time_grid

SIGNAL = tables.signal(tables.betas("scaled_linear", 1000, 0.00085, 0.012))


def test_spacings():
    """Table 2 of arXiv 2305.08891: 10 steps of 1000, there counted from 1."""
    leading = grids.spaced("leading", 10, 1000, 1)
    np.testing.assert_array_equal(leading, np.arange(901, 0, -100))
    np.testing.assert_array_equal(grids.spaced("trailing", 10), np.arange(999, 0, -100))
    np.testing.assert_allclose(grids.spaced("linspace", 10), np.arange(999, -1, -111))
    np.testing.assert_array_equal(grids.spaced("trailing", 3), [999, 666, 332])
    # One more, without the last.
    np.testing.assert_array_equal(grids.spaced("leading", 4, one_more=True), [800, 600, 400, 200])
    linspace = grids.spaced("linspace", 3, one_more=True)
    np.testing.assert_allclose(linspace, [999, 666, 333])


def test_distilled():
    np.testing.assert_array_equal(grids.distilled(4), [999, 759, 499, 259])
    np.testing.assert_array_equal(grids.distilled(50), np.arange(999, 0, -20))


@pytest.mark.parametrize("name", grids.LEVELS)
def test_noise_levels(name):
    levels = grids.noise_levels(name, 9, 14.0, 0.03)
    np.testing.assert_allclose(levels[[0, -1]], [14.0, 0.03])
    assert (np.diff(levels) < 0).all()
    middle = {
        "karras": ((14 ** (1 / 7) + 0.03 ** (1 / 7)) / 2) ** 7,
        "exponential": np.sqrt(14 * 0.03),
        "beta": (14 + 0.03) / 2,  # the distribution is symmetric
    }
    np.testing.assert_allclose(levels[4], middle[name])


def test_times():
    times = grids.times_of_timesteps(np.array([999.0, 499.5]), 1000)
    np.testing.assert_allclose(times, [1, 0.5005, 0])
    assert times.dtype == np.float32 and times[-1] == 0
    np.testing.assert_allclose(grids.times_of_timesteps(np.array([9.0]), 10, 0), [1, 0.1])
    levels = tables.ratios(SIGNAL)[[999, 500, 0]]
    np.testing.assert_allclose(
        grids.times_of_ratios(levels, SIGNAL), [1, 0.501, 0.001, 0], rtol=1e-6
    )
    between = np.sqrt(levels[1] * tables.ratios(SIGNAL)[501])
    np.testing.assert_allclose(grids.times_of_ratios(between[None], SIGNAL)[0], 0.5015, rtol=1e-6)


def test_flow_times():
    np.testing.assert_allclose(grids.flow_times(4, 3.0), time_grid(4, 3.0), rtol=1e-6)
    np.testing.assert_allclose(grids.flow_times(3, 1.0, 0.2), [1, 0.6, 0.2, 0], rtol=1e-6)
    np.testing.assert_allclose(grids.dynamic_shift(256), np.exp(0.5))
    np.testing.assert_allclose(grids.dynamic_shift(4096), np.exp(1.15))
    np.testing.assert_allclose(grids.dynamic_shift(2176), np.exp(0.825))


def test_refused():
    with pytest.raises(ValueError, match=r"'leadin'.*did you mean 'leading'"):
        grids.spaced("leadin", 4)
    with pytest.raises(ValueError, match="1 to 1000 steps, not 1001"):
        grids.spaced("leading", 1001)
    with pytest.raises(ValueError, match=r"'carras'.*did you mean 'karras'"):
        grids.noise_levels("carras", 4, 1.0, 0.1)
    with pytest.raises(ValueError, match="1 to 50, not 60"):
        grids.distilled(60)
    with pytest.raises(ValueError, match="at least 1 step"):
        grids.flow_times(0)
