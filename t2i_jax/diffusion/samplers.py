"""Samplers: from noise at t = 1 to data at t = 0.

Each sampler is one `lax.scan` whose body calls the network once. All have one signature,
`sampler(predict, x, times, schedule, keys=None) -> x`:

predict: (x [B, ...], t []) -> (x0, noise), both like x: the network under its parameterization,
    guidance included.
x: noise [B, ...] at times[0].
times: decreasing times [steps + 1], of `time_grid`.
schedule: one of schedules.py.
keys: one random key per example, for samplers that draw noise. Each example depends on its own
    noise and key, not on the rest of the batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from t2i_jax.core.types import Number
from t2i_jax.diffusion.schedules import MIN_DIVISOR, Schedule, log_snr, shift


def time_grid(steps: int, factor: Number = 1.0) -> Float[Array, "{steps}+1"]:
    """Return times from 1 down to 0: evenly spaced, then shifted by `factor` (schedules.shift).

    `steps` is static. Raises ValueError for steps < 1.
    """
    if steps < 1:
        raise ValueError(f"a sampler needs at least 1 step, not {steps}")
    # NumPy's linspace ends at exactly 0.
    return shift(jnp.asarray(np.linspace(1.0, 0.0, steps + 1), jnp.float32), factor)


def euler(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
) -> Float[Array, "B *rest"]:
    """Solve the probability-flow ODE dx/dt = alpha' x0 + sigma' noise with Euler's method.

    Order 1; calls the network `steps` times.
    """

    def step(x, interval):
        now, after = interval
        return x + (after - now) * _slope(predict, x, now, schedule), None

    return jax.lax.scan(step, x, (times[:-1], times[1:]))[0]


def heun(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
) -> Float[Array, "B *rest"]:
    """Solve the probability-flow ODE with Heun's method (arXiv 2206.00364, algorithm 1).

    Order 2; calls the network 2 steps - 1 times, because the last step is Euler's. The scan is over
    calls, not steps, so that the network is compiled once: even calls predict, odd ones correct.
    """

    def call(carry, index):
        x, start, first_slope = carry
        now, after = times[index // 2], times[index // 2 + 1]
        predicts = index % 2 == 0
        slope = _slope(predict, x, jnp.where(predicts, now, after), schedule)
        start = jnp.where(predicts, x, start)
        first_slope = jnp.where(predicts, slope, first_slope)
        return (start + (after - now) * (first_slope + slope) / 2, start, first_slope), None

    calls = jnp.arange(2 * (len(times) - 1) - 1)
    return jax.lax.scan(call, (x, x, jnp.zeros_like(x)), calls)[0][0]


def ddim(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
    eta: Number = 0.0,
) -> Float[Array, "B *rest"]:
    """Sample with DDIM (arXiv 2010.02502, equation 12), under any schedule.

    Order 1 at eta 0; calls the network `steps` times.

    eta: scales the fresh noise, from none (0) to DDPM's (1).

    Raises ValueError if eta is not 0 and there are no keys.
    """
    if keys is None and not (isinstance(eta, int | float) and eta == 0):
        raise ValueError("this sampler draws noise, so it needs keys, one an example")

    def step(x, xs):
        now, after, index = xs
        x0, noise = predict(x, now)
        here, there = schedule(now), schedule(after)
        # The standard deviation of q(x_after | x_now, x0) is
        # sigma_after sqrt(1 - SNR_now / SNR_after), which is 0 at the end.
        drop = 1.0 - (here.alpha * there.sigma / (there.alpha * here.sigma)) ** 2
        fresh = eta * there.sigma * jnp.sqrt(jnp.maximum(drop, 0.0))
        x = there.alpha * x0 + jnp.sqrt(jnp.maximum(there.sigma**2 - fresh**2, 0.0)) * noise
        if keys is not None:
            x = x + fresh * _normal(keys, index, x)
        return x, None

    return jax.lax.scan(step, x, (times[:-1], times[1:], jnp.arange(len(times) - 1)))[0]


def ddpm(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
) -> Float[Array, "B *rest"]:
    """Sample from DDPM's posteriors (ancestral sampling, arXiv 2006.11239, equations 6 and 7).

    It is DDIM with eta 1 (arXiv 2010.02502, section 4.1). Calls the network `steps` times. Raises
    ValueError without keys.
    """
    return ddim(predict, x, times, schedule, keys, eta=1.0)


def dpmpp_2m(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
) -> Float[Array, "B *rest"]:
    """Sample with DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2).

    Order 2; calls the network `steps` times. The first step is DDIM's, and so is a step to t = 0.
    """

    def step(carry, interval):
        x, x0_before, gap_before = carry
        here, there = schedule(interval[0]), schedule(interval[1])
        x0, _ = predict(x, interval[0])
        gap = (log_snr(there) - log_snr(here)) / 2  # h of the paper, a step in log(alpha / sigma)
        # 1 / (2 r) of the paper; 0 where `there` is t = 0, since the last h is infinite.
        extrapolation = jnp.where(there.sigma > MIN_DIVISOR, gap / (2 * gap_before), 0.0)
        blend = x0 + extrapolation * (x0 - x0_before)
        ratio = there.sigma / here.sigma
        return (ratio * x + (there.alpha - ratio * here.alpha) * blend, x0, gap), None

    return jax.lax.scan(step, (x, jnp.zeros_like(x), jnp.inf), (times[:-1], times[1:]))[0][0]


SAMPLERS = {"euler": euler, "heun": heun, "ddim": ddim, "ddpm": ddpm, "dpmpp_2m": dpmpp_2m}


def make_sampler(name: str) -> Callable:
    """Return the sampler called `name`. Raises ValueError, naming SAMPLERS, if there is none."""
    if name not in SAMPLERS:
        raise ValueError(f"there is no sampler {name!r}: there are {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def _slope(predict, x, t, schedule):
    """Return dx/dt of the probability-flow ODE at (x, t), for t > 0."""
    x0, noise = predict(x, t)
    _, rate = jax.jvp(schedule, (t,), (jnp.ones_like(t),))
    return rate.alpha * x0 + rate.sigma * noise


def _normal(keys, index, x):
    """Return noise like x, a function of each example's key and of the step's index."""
    draw = jax.vmap(
        lambda key: jax.random.normal(jax.random.fold_in(key, index), x.shape[1:], x.dtype)
    )
    return draw(keys)
