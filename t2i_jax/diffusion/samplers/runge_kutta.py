"""Euler's and Heun's methods, which look no step back."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from t2i_jax.diffusion.schedules import Schedule


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


def heun_sigma(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
) -> Float[Array, "B *rest"]:
    """Solve d(x / alpha) / d(sigma / alpha) = noise with Heun's method (arXiv 2206.00364).

    Order 2; calls the network 2 steps - 1 times, as `heun` does. It is the Heun's method of models
    with a table of noise levels: their sigma / alpha is smooth, their time is not. A step is that
    of DDIM and a correction by half the change of the noise. A step from alpha = 0, where
    sigma / alpha is infinite, has no correction.
    """

    def call(carry, index):
        x, x0, noise = carry
        now, after = times[index // 2], times[index // 2 + 1]
        here, there = schedule(now), schedule(after)
        predicts = index % 2 == 0
        new_x0, new_noise = predict(x, jnp.where(predicts, now, after))
        x0, noise = jnp.where(predicts, new_x0, x0), jnp.where(predicts, new_noise, noise)
        length = there.sigma - there.alpha * here.sigma / jnp.maximum(here.alpha, here.least)
        correction = jnp.where(here.alpha > here.least, length / 2, 0.0) * (new_noise - noise)
        return (there.alpha * x0 + there.sigma * noise + correction, x0, noise), None

    calls = jnp.arange(2 * (len(times) - 1) - 1)
    return jax.lax.scan(call, (x, jnp.zeros_like(x), jnp.zeros_like(x)), calls)[0][0]


def _slope(predict, x, t, schedule):
    """Return dx/dt of the probability-flow ODE at (x, t), for t > 0."""
    x0, noise = predict(x, t)
    _, rate = jax.jvp(schedule, (t,), (jnp.ones_like(t),))
    return rate.alpha * x0 + rate.sigma * noise
