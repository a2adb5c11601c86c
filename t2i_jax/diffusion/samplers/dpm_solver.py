"""Exponential integrators of order 2: DPM-Solver++(2M), its stochastic variant, and UniPC.

They solve the linear part of the ODE exactly, and take x0 as a straight line in log(alpha / sigma).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from t2i_jax.diffusion.samplers.fresh_noise import fresh_noise, need_keys
from t2i_jax.diffusion.schedules import Schedule, log_snr

FEW_STEPS = 15  # fewer than this are few


def dpmpp_2m(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
    lower_order_final: bool = False,
    euler_at_final: bool = False,
) -> Float[Array, "B *rest"]:
    """Sample with DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2).

    Order 2; calls the network `steps` times. The first step is DDIM's, and so is a step to t = 0.

    lower_order_final: whether the last of fewer than FEW_STEPS steps is DDIM's, wherever it ends.
    euler_at_final: whether the last step is DDIM's, wherever it ends.
    """
    first_order_last = _first_order_last(times, lower_order_final, euler_at_final)
    return _second_order(predict, x, times, schedule, None, first_order_last)


def dpmpp_2m_sde(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
    lower_order_final: bool = False,
    euler_at_final: bool = False,
) -> Float[Array, "B *rest"]:
    """Sample with SDE-DPM-Solver++(2M) (arXiv 2211.01095, appendix D): DDPM's of order 2.

    Calls the network `steps` times. The first step is that of `ddpm`, and so is a step to t = 0.
    The other arguments are those of `dpmpp_2m`. Raises ValueError without keys.
    """
    first_order_last = _first_order_last(times, lower_order_final, euler_at_final)
    return _second_order(predict, x, times, schedule, need_keys(keys), first_order_last)


def unipc(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
) -> Float[Array, "B *rest"]:
    """Sample with UniPC of order 2, for x0, with B(h) = e^h - 1 (arXiv 2302.04867, algorithms 5-8).

    Each step of `dpmpp_2m` is corrected once x0 is known at its end, without another call of the
    network: the corrected x is where the next step starts. The first step is of order 1, and so is
    the last, which is not corrected. Calls the network `steps` times.
    """
    c = schedule(times)
    half = log_snr(c) / 2
    h = half[1:] - half[:-1]
    ratio = c.sigma[1:] / c.sigma[:-1]
    gain = c.alpha[1:] - ratio * c.alpha[:-1]  # alpha (1 - e^-h) of the end of the step
    index = jnp.arange(len(h))
    back = jnp.concatenate([jnp.ones(1), h[:-1]]) / h  # the step before, in units of this one
    of_two = (index > 0) & (index < len(h) - 1)
    extrapolation = jnp.where(of_two, 1 / (2 * back), 0.0)
    old, new = _corrector(h, back)
    old, new = jnp.where(of_two, old, 0.0), jnp.where(of_two, new, 0.5)

    def step(carry, xs):
        x, x_before, x0_before, x0_earlier = carry
        now, here, before, index = xs
        x0, _ = predict(x, now)

        def move(x, coefficients, blend):
            ratio, gain, *_ = coefficients
            return ratio * x + gain * blend

        slopes = before[3] * (x0_before - x0_earlier) + before[4] * (x0 - x0_before)
        x = jnp.where(index > 0, move(x_before, before, x0_before + slopes), x)
        after = move(x, here, x0 + here[2] * (x0 - x0_before))
        return (after, x, x0, x0_before), None

    here = (ratio, gain, extrapolation, old, new)
    before = tuple(jnp.roll(value, 1) for value in here)
    zeros = jnp.zeros_like(x)
    carry = (x, zeros, zeros, zeros)
    return jax.lax.scan(step, carry, (times[:-1], here, before, index))[0][0]


def _corrector(h, back):
    """Return the weights of the corrector of order 2 for steps h [steps] in log(alpha / sigma).

    They multiply the slope before the step and the change of x0 in the step. With
    phi_1 = (e^z - 1) / z and phi_k+1 = (phi_k - 1 / k!) / z at z = -h, the weights (p, q) of both
    changes, each divided by its length in units of h, solve p + q = phi_2 / phi_1 and
    q - back p = 2 phi_3 / phi_1 (arXiv 2302.04867, equation 5).
    """
    phi_1 = jnp.expm1(-h) / -h
    phi_2 = (phi_1 - 1.0) / -h
    phi_3 = (phi_2 - 0.5) / -h
    p = (phi_2 - 2 * phi_3) / (phi_1 * (1.0 + back))
    return p / back, phi_2 / phi_1 - p


def _second_order(predict, x, times, schedule, keys, first_order_last):
    """Sample with DPM-Solver++(2M), with keys its stochastic variant."""
    last = len(times) - 2

    def step(carry, xs):
        x, x0_before, gap_before = carry
        now, after, index = xs
        here, there = schedule(now), schedule(after)
        x0, _ = predict(x, now)
        gap = (log_snr(there) - log_snr(here)) / 2  # h of the paper, a step in log(alpha / sigma)
        # 1 / (2 r) of the paper; 0 where `there` is t = 0, since the last h is infinite.
        extrapolation = jnp.where(there.sigma > there.least, gap / (2 * gap_before), 0.0)
        if first_order_last:
            extrapolation = jnp.where(index == last, 0.0, extrapolation)
        blend = x0 + extrapolation * (x0 - x0_before)
        ratio = there.sigma / here.sigma
        fresh = 0.0
        if keys is not None:
            shrink = ratio * here.alpha / there.alpha  # e^-h
            ratio, fresh = ratio * shrink, there.sigma * jnp.sqrt(1.0 - shrink**2)
        x = ratio * x + (there.alpha - ratio * here.alpha) * blend
        if keys is not None:
            x = x + fresh * fresh_noise(keys, index, x)
        return (x, x0, gap), None

    xs = (times[:-1], times[1:], jnp.arange(len(times) - 1))
    return jax.lax.scan(step, (x, jnp.zeros_like(x), jnp.inf), xs)[0][0]


def _first_order_last(times, lower_order_final: bool, euler_at_final: bool) -> bool:
    return euler_at_final or (lower_order_final and len(times) - 1 < FEW_STEPS)
