"""Likelihoods of pictures: what a decoder's numbers say of each pixel.

A function takes x, location and log_scale, which broadcast, x being pixels in [-1, 1], and gives nats of the same shape.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

HALF_BIN = 1 / 255  # half the distance of two of the 256 levels
SMALLEST = -7.0  # of log_scale: far less than a level


class Likelihood(NamedTuple):
    """log_prob: (x, location, log_scale) -> nats.   picture: location -> the expected pixels, in [-1, 1] or beyond.

    scales: whether log_scale has a meaning.
    density: it is a density of x; times the width of a level it becomes the probability of one.
    """

    log_prob: Callable
    picture: Callable = lambda location: location
    scales: bool = True
    density: bool = False


def bernoulli(x, logit, log_scale=None):
    """A pixel is white (1) with probability sigmoid(logit), else black (-1); grey is taken as that share of white ones.

    For pictures that are not black and white this is a cross-entropy, and no likelihood of their 256 levels.
    """
    white = (x + 1) / 2
    return white * jax.nn.log_sigmoid(logit) + (1 - white) * jax.nn.log_sigmoid(-logit)


def gaussian(x, mean, log_scale):
    """The density of a normal distribution of standard deviation exp(log_scale)."""
    return -0.5 * ((x - mean) * jnp.exp(-log_scale)) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)


def logistic(x, mean, log_scale):
    """The probability of one of 256 levels under a logistic distribution of scale exp(log_scale), cut into bins; the first
    and the last bin are open (arXiv 1701.05517, equation 2, with one component).

    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), in logarithms, never cancels.
    """
    upper, lower = ((x - mean + side) * jnp.exp(-log_scale) for side in (HALF_BIN, -HALF_BIN))
    below, above = jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower)
    within = below + above + jnp.log(-jnp.expm1(-2 * HALF_BIN * jnp.exp(-log_scale)))
    return jnp.where(x < HALF_BIN - 1, below, jnp.where(x > 1 - HALF_BIN, above, within))


LIKELIHOODS = {
    "bernoulli": Likelihood(bernoulli, lambda logit: 2 * jax.nn.sigmoid(logit) - 1, scales=False),
    "gaussian": Likelihood(gaussian, density=True),
    "logistic": Likelihood(logistic),
}


def load(name: str) -> Likelihood:
    """The likelihood of that name; ValueError, naming those there are, for another."""
    if name not in LIKELIHOODS:
        raise ValueError(f"there is no likelihood {name!r}: there are {', '.join(LIKELIHOODS)}")
    return LIKELIHOODS[name]


def bits_per_dimension(likelihood: Likelihood, nats, dimensions: int):
    """A picture's negative log-likelihood, nats [B], as bits for each of its `dimensions` pixels and channels.

    A density is counted as if it did not change within a level, which a scale much smaller than one (2 / 255) does.
    """
    width = math.log(2 * HALF_BIN) if likelihood.density else 0.0
    return (nats / dimensions - width) / math.log(2)
