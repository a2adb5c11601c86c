"""Noise schedules of models with a table of noise levels, most often 1000.

Timestep k of N is time t = (k + 1) / N, so t = 1 is the noisiest and t = 0 is data, one step below
timestep 0. Tables are NumPy, in float64.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from t2i_jax.core.registry import did_you_mean
from t2i_jax.diffusion.schedules import Schedule, variance_preserving

LEAST = 1e-8  # of alpha and sigma where they divide; see Coefficients.least
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")


def betas(
    name: str, count: int = 1000, first: float = 1e-4, last: float = 0.02
) -> Float[np.ndarray, "{count}"]:
    """Return the variances of the noise added at each timestep.

    name: "linear" (arXiv 2006.11239); "scaled_linear", whose square root is linear (Stable
        Diffusion); "squaredcos_cap_v2", the cosine of arXiv 2102.09672, equation 17, with betas of
        at most 0.999, which ignores `first` and `last`.
    Raises ValueError, naming BETAS, for another name.
    """
    if name == "linear":
        return np.linspace(first, last, count)
    if name == "scaled_linear":
        return np.linspace(first**0.5, last**0.5, count) ** 2
    if name == "squaredcos_cap_v2":
        alpha = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2)
        return np.minimum(1.0 - (alpha[1:] / alpha[:-1]) ** 2, 0.999)
    raise ValueError(
        f"there are no betas {name!r}: there are {', '.join(BETAS)}{did_you_mean(name, BETAS)}"
    )


def signal(betas: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Return alpha² of each timestep, the product of 1 - beta up to it ("alphas_cumprod").

    It is rounded to float32, as in training: near alpha² = 1 this moves sigma by up to 0.1 %.
    """
    return np.cumprod(1.0 - betas).astype(np.float32).astype(np.float64)


def zero_terminal_snr(signal: Float[np.ndarray, "N"], last: float = 0.0) -> Float[np.ndarray, "N"]:
    """Return alpha² moved and scaled so that alpha is 0 at the end (arXiv 2305.08891, algorithm 1).

    last: alpha² of the last timestep, for samplers that need a finite sigma / alpha.
    """
    root = np.sqrt(signal)
    moved = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return np.append(moved[:-1], last)


def ratios(signal: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Return sigma / alpha of each timestep, the noise level of a variance-exploding model."""
    signal = np.maximum(signal, LEAST**2)
    return np.sqrt((1.0 - signal) / signal)


def table(signal: Float[np.ndarray, "N"]) -> Schedule:
    """Return the variance-preserving schedule with this alpha² at t = 1 / N, 2 / N, ..., 1.

    Between these times log(sigma / alpha) is linear in t. Below the first one sigma / alpha is
    proportional to t, so that t = 0 is data. Raises ValueError unless alpha² falls.
    """
    if not (np.diff(signal) < 0).all() or signal[0] >= 1 or signal[-1] < 0:
        raise ValueError("a table of alpha² must fall from below 1 to 0 or above")
    times = (np.arange(len(signal)) + 1.0) / len(signal)
    times, logs = times.astype(np.float32), np.log(ratios(signal)).astype(np.float32)

    def schedule(t):
        below = jnp.log(jnp.minimum(t / times[0], 1.0))  # 0 from the first time of the table on
        ratio = jnp.exp(jnp.interp(t, times, logs) + below)
        alpha = 1.0 / jnp.sqrt(1.0 + ratio**2)
        return variance_preserving(alpha, ratio * alpha)._replace(least=LEAST)

    return schedule
