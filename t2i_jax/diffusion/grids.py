"""Time grids of published models: at which timesteps or noise levels a sampler calls the network.

NumPy only: a grid is a constant of the compiled program. Timestep k of N is time (k + 1) / N
(tables.py); N = 1000 below.

`spaced` and `noise_levels` choose the steps; `times_of_timesteps` and `times_of_ratios` turn them
into decreasing times [steps + 1] for a sampler, and add the end. `flow_times` is the grid of
rectified flows.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy.special import betaincinv

from t2i_jax.core.registry import did_you_mean
from t2i_jax.diffusion.tables import ratios

SPACINGS = ("leading", "trailing", "linspace")
LEVELS = ("karras", "exponential", "beta")
KARRAS_RHO = 7.0  # arXiv 2206.00364, table 1
BETA_SHAPE = 0.6  # arXiv 2407.12173, section 4: both parameters of the beta distribution


def spaced(
    spacing: str, steps: int, count: int = 1000, offset: int = 0, one_more: bool = False
) -> Float[np.ndarray, "{steps}"]:
    """Return decreasing timesteps, evenly spaced (arXiv 2305.08891, table 2).

    spacing: "leading" is k (count // steps) + `offset`, which leaves out the noisiest; "trailing"
        ends one step above -1; "linspace" has both ends, and fractions.
    count: timesteps of the model.
    one_more: whether to space steps + 1 timesteps and drop the last, as DPM-Solver does; it changes
        nothing for "trailing".
    Raises ValueError, naming SPACINGS, for another spacing, and for steps not in 1 to `count`.
    """
    if not 1 <= steps <= count:
        raise ValueError(f"a model of {count} timesteps takes 1 to {count} steps, not {steps}")
    points = steps + one_more
    if spacing == "leading":
        timesteps = np.arange(points)[::-1] * (count // points) + float(offset)
    elif spacing == "trailing":
        return np.round(count - count / steps * np.arange(steps)) - 1
    elif spacing == "linspace":
        timesteps = np.linspace(0, count - 1, points)[::-1]
    else:
        raise ValueError(
            f"there is no spacing {spacing!r}: there are {', '.join(SPACINGS)}"
            f"{did_you_mean(spacing, SPACINGS)}"
        )
    return timesteps[:steps]


def distilled(
    steps: int, count: int = 1000, teacher_steps: int = 50
) -> Float[np.ndarray, "{steps}"]:
    """Return decreasing timesteps for LCM and TCD: evenly spaced among the teacher's.

    Raises ValueError for steps not in 1 to `teacher_steps`.
    """
    if not 1 <= steps <= teacher_steps:
        raise ValueError(
            f"a model distilled from {teacher_steps} steps takes 1 to {teacher_steps}, not {steps}"
        )
    teacher = np.arange(teacher_steps, 0, -1) * (count // teacher_steps) - 1.0
    return teacher[np.floor(np.linspace(0, teacher_steps, steps, endpoint=False)).astype(int)]


def noise_levels(name: str, steps: int, high: float, low: float) -> Float[np.ndarray, "{steps}"]:
    """Return decreasing sigma / alpha from `high` to `low`.

    name: "karras" (arXiv 2206.00364, equation 5), "exponential" (evenly spaced logarithms), or
        "beta" (quantiles of a beta distribution, arXiv 2407.12173).
    Raises ValueError, naming LEVELS, for another name.
    """
    ramp = np.linspace(0.0, 1.0, steps)
    if name == "karras":
        ends = high ** (1 / KARRAS_RHO), low ** (1 / KARRAS_RHO)
        return (ends[0] + ramp * (ends[1] - ends[0])) ** KARRAS_RHO
    if name == "exponential":
        return np.exp(np.log(high) + ramp * (np.log(low) - np.log(high)))
    if name == "beta":
        return low + (high - low) * betaincinv(BETA_SHAPE, BETA_SHAPE, 1.0 - ramp)
    raise ValueError(
        f"there are no noise levels {name!r}: there are {', '.join(LEVELS)}"
        f"{did_you_mean(name, LEVELS)}"
    )


def times_of_timesteps(
    timesteps: Float[np.ndarray, "S"], count: int = 1000, end: float = -1
) -> Float[np.ndarray, "S+1"]:
    """Return the times of `timesteps`, and that of timestep `end`: -1 is data, t = 0."""
    return ((np.append(timesteps, end) + 1.0) / count).astype(np.float32)


def times_of_ratios(
    levels: Float[np.ndarray, "S"], signal: Float[np.ndarray, "N"], end: float = -1
) -> Float[np.ndarray, "S+1"]:
    """Return the times at which `tables.table(signal)` has these sigma / alpha, and timestep `end`.

    levels: from the smallest to the largest sigma / alpha of the table.
    """
    at = np.interp(np.log(levels), np.log(ratios(signal)), np.arange(len(signal)))
    return times_of_timesteps(at, len(signal), end)


def flow_times(
    steps: int, factor: float = 1.0, last: float | None = None
) -> Float[np.ndarray, "{steps}+1"]:
    """Return times from 1 to 0 for a rectified flow, shifted by `factor` (schedules.shift).

    last: the last time before 0, before the shift. None, as FLUX has it, for `steps` equal steps.
    Raises ValueError for steps < 1.
    """
    if steps < 1:
        raise ValueError(f"a sampler needs at least 1 step, not {steps}")
    times = np.linspace(1.0, 1 / steps if last is None else last, steps)
    times = factor * times / (1.0 + (factor - 1.0) * times)
    return np.append(times, 0.0).astype(np.float32)


def dynamic_shift(
    tokens: int,
    few: int = 256,
    many: int = 4096,
    at_few: float = 0.5,
    at_many: float = 1.15,
) -> float:
    """Return the shift e^mu for a picture of `tokens` patches, as FLUX and SD 3.5 have it.

    mu is linear in the number of patches: `at_few` for `few`, `at_many` for `many`. A larger
    picture needs more noise (arXiv 2403.03206, section 5.3.2).
    """
    return math.exp(at_few + (at_many - at_few) * (tokens - few) / (many - few))
