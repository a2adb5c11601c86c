"""Samplers: from noise at t = 1 to data at t = 0.

Each sampler is one `lax.scan` whose body calls the network once. All have one signature,
`sampler(predict, x, times, schedule, keys=None) -> x`:

predict: (x [B, ...], t []) -> (x0, noise), both like x: the network under its parameterization,
    guidance included.
x: noise [B, ...] at times[0].
times: decreasing times [steps + 1], of `time_grid` or of grids.py.
schedule: one of schedules.py, or a table (tables.py).
keys: one random key per example, for samplers that draw noise. Each example depends on its own
    noise and key, not on the rest of the batch.

What is called Euler's method in sigma / alpha elsewhere (k-diffusion, diffusers) is `ddim`, and
Euler ancestral is `ddpm`: the same formulas in other variables.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from t2i_jax.core.registry import did_you_mean
from t2i_jax.core.types import Number
from t2i_jax.diffusion.samplers.dpm_solver import dpmpp_2m, dpmpp_2m_sde, unipc
from t2i_jax.diffusion.samplers.linear_multistep import lms, plms
from t2i_jax.diffusion.samplers.renoising import ddim, ddpm, lcm, tcd
from t2i_jax.diffusion.samplers.runge_kutta import euler, heun, heun_sigma
from t2i_jax.diffusion.schedules import shift

SAMPLERS = {
    "euler": euler,
    "heun": heun,
    "ddim": ddim,
    "ddpm": ddpm,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "unipc": unipc,
    "heun_sigma": heun_sigma,
    "lms": lms,
    "plms": plms,
    "lcm": lcm,
    "tcd": tcd,
}


def make_sampler(name: str) -> Callable:
    """Return the sampler called `name`. Raises ValueError, naming SAMPLERS, if there is none."""
    if name not in SAMPLERS:
        raise ValueError(
            f"there is no sampler {name!r}: there are {', '.join(SAMPLERS)}"
            f"{did_you_mean(name, SAMPLERS)}"
        )
    return SAMPLERS[name]


def time_grid(steps: int, factor: Number = 1.0) -> Float[Array, "{steps}+1"]:
    """Return times from 1 down to 0: evenly spaced, then shifted by `factor` (schedules.shift).

    `steps` is static. Raises ValueError for steps < 1.
    """
    if steps < 1:
        raise ValueError(f"a sampler needs at least 1 step, not {steps}")
    # NumPy's linspace ends at exactly 0.
    return shift(jnp.asarray(np.linspace(1.0, 0.0, steps + 1), jnp.float32), factor)
