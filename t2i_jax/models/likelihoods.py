"""Likelihoods of pictures: the probability of each pixel under the numbers of a decoder.

A likelihood takes pixels x in [-1, 1], location and log_scale, which broadcast, and returns nats of
the same shape.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.types import AnyArray, Numbers

HALF_BIN = 1 / 255  # half of the distance between two of the 256 levels, in [-1, 1]
MIN_LOG_SCALE = -7.0  # a scale much smaller than a level


class Likelihood(NamedTuple):
    """A distribution of pixels.

    log_prob: (x, location, log_scale) -> nats.
    picture: location -> the expected pixels, in [-1, 1] or beyond.
    has_scale: whether log_scale has a meaning.
    is_density: whether it is a density of x. Its value times the width of a level is the
        probability of that level.
    """

    log_prob: Callable
    picture: Callable = lambda location: location
    has_scale: bool = True
    is_density: bool = False


def bernoulli(x: Numbers, logit: Numbers, log_scale=None) -> Float[AnyArray, "..."]:
    """Return nats of pixels that are white (1) with probability sigmoid(logit), else black (-1).

    A grey pixel counts as a mixture of white and black. For pictures that are not black and white
    this is a cross-entropy, not a likelihood of their 256 levels.
    """
    white = (x + 1) / 2
    return white * jax.nn.log_sigmoid(logit) + (1 - white) * jax.nn.log_sigmoid(-logit)


def gaussian(x: Numbers, mean: Numbers, log_scale: Numbers) -> Float[AnyArray, "..."]:
    """Return the log density of a normal distribution of standard deviation exp(log_scale)."""
    return -0.5 * ((x - mean) * jnp.exp(-log_scale)) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)


def logistic(x: Numbers, mean: Numbers, log_scale: Numbers) -> Float[AnyArray, "..."]:
    """Return nats of one of 256 levels under a logistic distribution of scale exp(log_scale).

    The distribution is cut into bins; the first and the last bin are open (arXiv 1701.05517,
    equation 2, with one component).
    """
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)). In logarithms, this product
    # never suffers from cancellation.
    upper, lower = ((x - mean + side) * jnp.exp(-log_scale) for side in (HALF_BIN, -HALF_BIN))
    below, above = jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower)
    within = below + above + jnp.log(-jnp.expm1(-2 * HALF_BIN * jnp.exp(-log_scale)))
    return jnp.where(x < HALF_BIN - 1, below, jnp.where(x > 1 - HALF_BIN, above, within))


LIKELIHOODS = {
    "bernoulli": Likelihood(
        bernoulli, lambda logit: 2 * jax.nn.sigmoid(logit) - 1, has_scale=False
    ),
    "gaussian": Likelihood(gaussian, is_density=True),
    "logistic": Likelihood(logistic),
}


def load(name: str) -> Likelihood:
    """Return the likelihood of this name. Raises ValueError, naming all, for an unknown one."""
    if name not in LIKELIHOODS:
        raise ValueError(f"there is no likelihood {name!r}: there are {', '.join(LIKELIHOODS)}")
    return LIKELIHOODS[name]


def bits_per_dimension(
    likelihood: Likelihood, nats: Float[Array, "B"], dimensions: int
) -> Float[Array, "B"]:
    """Return the negative log-likelihood of pictures in bits per dimension.

    nats: the negative log-likelihood of each picture.
    dimensions: of a picture: its pixels times its channels.
    A density is taken as constant within a level. This is wrong for a scale much smaller than one
    level (2 / 255).
    """
    width = math.log(2 * HALF_BIN) if likelihood.is_density else 0.0
    return (nats / dimensions - width) / math.log(2)
