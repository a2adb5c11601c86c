"""Linear multistep methods: DDIM steps, with the noise extrapolated from the last four steps.

With x / alpha as the variable and sigma / alpha as the time, the slope of the ODE is the noise, and
Euler's method is DDIM. The methods here add to a step of DDIM the differences between earlier noise
predictions and the newest one, weighted.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from t2i_jax.diffusion.schedules import Schedule

PAST = 3  # earlier predictions of the noise that a step looks at
# Weights of (earlier noise - newest noise) by the number of earlier ones known, the latest first:
# Adams-Bashforth methods of order 1 to 4.
ADAMS_BASHFORTH = np.array(
    [[0, 0, 0], [-1 / 2, 0, 0], [-16 / 12, 5 / 12, 0], [-59 / 24, 37 / 24, -9 / 24]], np.float32
)


def lms(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
) -> Float[Array, "B *rest"]:
    """Sample with the linear multistep method of k-diffusion, order 4.

    The noise, a polynomial in sigma / alpha through the last four predictions, is integrated over
    the step. Calls the network `steps` times.
    """
    c = schedule(times)
    ratio = c.sigma / jnp.maximum(c.alpha, c.least)

    def step(carry, xs):
        x, past = carry
        now, alpha, sigma, weights = xs
        x0, noise = predict(x, now)
        bent = jnp.tensordot(weights, past - noise, 1)
        return (alpha * (x0 + bent) + sigma * noise, _push(past, noise)), None

    xs = (times[:-1], c.alpha[1:], c.sigma[1:], _lagrange_weights(ratio))
    return jax.lax.scan(step, (x, jnp.zeros((PAST, *x.shape), x.dtype)), xs)[0][0]


def plms(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
) -> Float[Array, "B *rest"]:
    """Sample with PNDM without its Runge-Kutta steps (arXiv 2202.09778; "PLMS").

    The noise is extrapolated as if steps were of equal length (Adams-Bashforth, order 4). The first
    step is made twice: by DDIM, then by the mean of the noise at both ends. Calls the network
    `steps` + 1 times, or once for one step.
    """
    steps = len(times) - 1

    def call(carry, index):
        x, start, past = carry
        interval, again = jnp.maximum(index - 1, 0), index == 1
        here, there = schedule(times[interval]), schedule(times[interval + 1])
        x0, noise = predict(x, jnp.where(again, times[1], times[interval]))
        known = jnp.clip(index - 1, 0, PAST)
        change = jnp.tensordot(jnp.asarray(ADAMS_BASHFORTH)[known], past - noise, 1)
        # On the second call, `start` is x0 and the noise at the start of the first step.
        change = jnp.where(again, (noise - start[1]) / 2, change)
        x0, noise = jnp.where(again, start, jnp.stack([x0, noise]))
        length = there.sigma - there.alpha * here.sigma / jnp.maximum(here.alpha, here.least)
        length = jnp.where(here.alpha > here.least, length, 0.0)
        x = there.alpha * x0 + there.sigma * noise + length * change
        past = jnp.where(again, past, _push(past, noise))
        return (x, jnp.stack([x0, noise]), past), None

    calls = jnp.arange(steps + 1 if steps > 1 else 1)
    zeros = jnp.zeros_like(x)
    carry = (x, jnp.stack([zeros] * 2), jnp.stack([zeros] * PAST))
    return jax.lax.scan(call, carry, calls)[0][0]


def _push(past, noise):
    """Return `past` [PAST, ...] with `noise` as its first, and without its last."""
    return jnp.concatenate([noise[None], past[:-1]])


def _lagrange_weights(points):
    """Integrate, over each interval of `points` [steps + 1], the Lagrange polynomials of the past.

    Returns [steps, PAST]: the weight of (earlier value - newest value), 0 before the first step.
    The polynomials have a degree of at most 3, so Gauss's rule with two nodes is exact.
    """
    steps = len(points) - 1
    place = np.arange(steps)[:, None] - np.arange(PAST + 1)  # of the newest value and of earlier
    known, at = place >= 0, points[np.maximum(place, 0)]
    middle, half = (points[1:] + points[:-1]) / 2, (points[1:] - points[:-1]) / 2
    total = 0.0
    for node in (-(3**-0.5), 3**-0.5):
        tau = (middle + node * half)[:, None, None]
        other = known[:, None, :] & ~np.eye(PAST + 1, dtype=bool)
        gap = jnp.where(other, at[:, :, None] - at[:, None, :], 1.0)
        total += jnp.prod(jnp.where(other, (tau - at[:, None, :]) / gap, 1.0), axis=2)
    return jnp.where(known, half[:, None] * total, 0.0)[:, 1:]
