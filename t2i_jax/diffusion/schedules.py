"""Noise schedules: x_t = alpha(t) x0 + sigma(t) noise for t in [0, 1], where t = 1 is noise.

A schedule is a function of time. Rectified flow is a schedule together with a prediction target
(parameterizations.py), not another kind of model.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from t2i_jax.core.types import Number, Numbers

MIN_DIVISOR = 1e-3  # Coefficients.least of schedules that reach alpha = 0


class Coefficients(NamedTuple):
    """The coefficients of a schedule, each of the shape of the times.

    They are defined by three equations:
        x_t = alpha x0 + sigma noise
        velocity = velocity_x0 x0 + velocity_noise noise
        alpha velocity_noise - sigma velocity_x0 = 1
    The velocity is therefore dx_t/dt up to a positive factor, which is 1 for rectified flow. There
    it is noise - x0; where alpha² + sigma² = 1 it is alpha noise - sigma x0 (arXiv 2202.00512,
    appendix D). x0 and the noise follow from x_t and the velocity without a division, at every t.

    least: an alpha or sigma that divides something is raised to this number.
    """

    alpha: Float[Array, "..."]
    sigma: Float[Array, "..."]
    velocity_x0: Float[Array, "..."]
    velocity_noise: Float[Array, "..."]
    least: Numbers = MIN_DIVISOR


Schedule = Callable[[Array], Coefficients]


def rectified(t: Float[Array, "*shape"]) -> Coefficients:
    """Return straight lines, alpha = 1 - t and sigma = t.

    Source: rectified flow, arXiv 2209.03003; arXiv 2210.02747, equation 20.
    """
    return Coefficients(1.0 - t, 1.0 * t, -jnp.ones_like(t), jnp.ones_like(t))


def cosine(t: Float[Array, "*shape"]) -> Coefficients:
    """Return the variance-preserving alpha = cos(pi t / 2) and sigma = sin(pi t / 2).

    Source: arXiv 2102.09672, equation 17, with s = 0.
    """
    # The cosine is written as a sine, so that alpha(1) is exactly 0.
    return variance_preserving(jnp.sin(jnp.pi / 2 * (1.0 - t)), jnp.sin(jnp.pi / 2 * t))


def linear_beta(t: Float[Array, "*shape"]) -> Coefficients:
    """Return DDPM's schedule in continuous time, with beta from 0.1 to 20.

    alpha(1) is 0.0066, not 0. Source: arXiv 2011.13456, equation 33.
    """
    log_alpha = -0.25 * t**2 * (20.0 - 0.1) - 0.5 * t * 0.1
    return variance_preserving(jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2.0 * log_alpha)))


def variance_preserving(
    alpha: Float[Array, "*shape"], sigma: Float[Array, "*shape"]
) -> Coefficients:
    """Return the coefficients of a schedule where alpha² + sigma² = 1."""
    return Coefficients(alpha, sigma, -sigma, alpha)


SCHEDULES = {"rectified": rectified, "cosine": cosine, "linear_beta": linear_beta}


def make_schedule(name: str) -> Schedule:
    """Return the schedule called `name`. Raises ValueError, naming SCHEDULES, if there is none."""
    return _choose("schedule", SCHEDULES, name)


def log_snr(c: Coefficients) -> Float[Array, "..."]:
    """Return log(alpha² / sigma²), of the shape of the times.

    alpha and sigma are raised to `c.least`. With MIN_DIVISOR the result stays within about ±13.8.
    """
    return 2.0 * (jnp.log(jnp.maximum(c.alpha, c.least)) - jnp.log(jnp.maximum(c.sigma, c.least)))


def shift(t: Float[Array, "*shape"], factor: Number) -> Float[Array, "*shape"]:
    """Return factor t / (1 + (factor - 1) t): times moved towards noise if `factor` > 1.

    Under the rectified schedule this divides alpha / sigma by `factor`, which suits an image with
    factor² times the pixels. 0 and 1 stay where they are, and a shift by f then by g is the shift
    by f g. Source: arXiv 2403.03206, equation 23.
    """
    return factor * t / (1.0 + (factor - 1.0) * t)


def uniform(key: Key[Array, ""], mean: Number = 0.0, std: Number = 1.0) -> Float[Array, ""]:
    """Draw a training time from the uniform distribution on [0, 1). Ignores `mean` and `std`."""
    return jax.random.uniform(key)


def logit_normal(key: Key[Array, ""], mean: Number = 0.0, std: Number = 1.0) -> Float[Array, ""]:
    """Draw a training time whose logit is normal, with this mean and standard deviation.

    A positive mean favours noise. Source: arXiv 2403.03206, equation 19.
    """
    return jax.nn.sigmoid(mean + std * jax.random.normal(key))


TIME_DISTRIBUTIONS = {"uniform": uniform, "logit_normal": logit_normal}


def make_time(name: str) -> Callable:
    """Return the distribution of training times called `name`: (key, mean, std) -> t.

    Raises ValueError, naming TIME_DISTRIBUTIONS, if there is none.
    """
    return _choose("time distribution", TIME_DISTRIBUTIONS, name)


def _choose(what: str, table: dict, name: str):
    if name not in table:
        raise ValueError(f"there is no {what} {name!r}: there are {', '.join(table)}")
    return table[name]
