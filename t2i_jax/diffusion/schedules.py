"""Noise schedules: the forward process x_t = alpha(t) x0 + sigma(t) noise for t in [0, 1], where t = 1 is noise.

A schedule is a function of time. Rectified flow is a schedule (and a target), not another kind of model.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

FLOOR = 1e-3  # the smallest alpha or sigma that anything is divided by


class Coefficients(NamedTuple):
    """The schedule at a time, each of the shape of t.

    x_t = alpha x0 + sigma noise and velocity = velocity_x0 x0 + velocity_noise noise, with
    alpha velocity_noise - sigma velocity_x0 = 1. The velocity is thus dx_t/dt up to a positive factor (1 for rectified
    flow): noise - x0 there, and alpha noise - sigma x0 where alpha² + sigma² = 1 (arXiv 2202.00512, appendix D); and
    x0 and the noise follow from x_t and the velocity without a division, at every t.
    """

    alpha: Any
    sigma: Any
    velocity_x0: Any
    velocity_noise: Any


Schedule = Callable[[jax.Array], Coefficients]


def rectified(t) -> Coefficients:
    """Straight lines: alpha = 1 - t, sigma = t (rectified flow, arXiv 2209.03003; arXiv 2210.02747, equation 20)."""
    return Coefficients(1.0 - t, 1.0 * t, -jnp.ones_like(t), jnp.ones_like(t))


def cosine(t) -> Coefficients:
    """Variance preserving: alpha = cos(pi t / 2), sigma = sin(pi t / 2) (arXiv 2102.09672, equation 17, with s = 0)."""
    return _variance_preserving(jnp.sin(jnp.pi / 2 * (1.0 - t)), jnp.sin(jnp.pi / 2 * t))  # alpha(1) is 0 exactly


def linear_beta(t) -> Coefficients:
    """DDPM in continuous time, beta from 0.1 to 20 (arXiv 2011.13456, equation 33); alpha(1) = 0.0066, not 0."""
    log_alpha = -0.25 * t**2 * (20.0 - 0.1) - 0.5 * t * 0.1
    return _variance_preserving(jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2.0 * log_alpha)))


def _variance_preserving(alpha, sigma) -> Coefficients:
    return Coefficients(alpha, sigma, -sigma, alpha)


SCHEDULES = {"rectified": rectified, "cosine": cosine, "linear_beta": linear_beta}


def make_schedule(name: str) -> Schedule:
    """The schedule of that name. Raises ValueError, naming those there are."""
    return _choose("schedule", SCHEDULES, name)


def log_snr(c: Coefficients):
    """log(alpha² / sigma²); alpha and sigma are held at FLOOR or above, so it stays within about ±13.8."""
    return 2.0 * (jnp.log(jnp.maximum(c.alpha, FLOOR)) - jnp.log(jnp.maximum(c.sigma, FLOOR)))


def shift(t, factor):
    """Times moved towards noise by `factor` > 1: factor t / (1 + (factor - 1) t) (arXiv 2403.03206, equation 23).

    Under the rectified schedule this divides alpha / sigma by `factor`, which suits an image with factor² times the
    pixels. 0 and 1 stay where they are, and a shift by f then by g is the shift by f g.
    """
    return factor * t / (1.0 + (factor - 1.0) * t)


def uniform(key, mean=0.0, std=1.0):
    """A training time [] from the uniform distribution on [0, 1); mean and std are not used."""
    return jax.random.uniform(key)


def logit_normal(key, mean=0.0, std=1.0):
    """A training time [] whose logit is normal (arXiv 2403.03206, equation 19); a positive mean favours noise."""
    return jax.nn.sigmoid(mean + std * jax.random.normal(key))


TIMES = {"uniform": uniform, "logit_normal": logit_normal}


def make_time(name: str) -> Callable:
    """The training times of that name: (key, mean, std) -> t []. Raises ValueError, naming those there are."""
    return _choose("time distribution", TIMES, name)


def _choose(what: str, table: dict, name: str):
    if name not in table:
        raise ValueError(f"there is no {what} {name!r}: there are {', '.join(table)}")
    return table[name]
