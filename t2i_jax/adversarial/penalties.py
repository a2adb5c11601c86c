"""Penalties on the gradient of a network by its input; they can be differentiated by parameters.

Each penalty takes the gradient of a sum over the batch, which contains the gradient of every
example. If a network mixes examples (minibatch standard deviation), the gradient by one picture
includes its effect on the others.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from t2i_jax.core.types import Number

# Added under a square root, whose derivative at zero is infinite.
MIN_SQUARED_NORM = 1e-12


def r1(logits_of: Callable, x: Float[Array, "B *rest"]) -> Float[Array, "B"]:
    """Return half the squared norm of the gradient of `logits_of` at x.

    logits_of: x -> [B]. Source: arXiv 1801.04406, equation 9.
    """
    return 0.5 * _squared_norm(jax.grad(lambda x: logits_of(x).sum())(x))


def gradient_penalty(
    logits_of: Callable,
    real: Float[Array, "B *rest"],
    fake: Float[Array, "B *rest"],
    keys: Key[Array, "B"],
) -> Float[Array, "B"]:
    """Return (|gradient| - 1)² at a random point between real and fake.

    logits_of: x -> [B].
    keys: one per example, for the random points.

    The caller multiplies by the weight of the penalty (10 in the paper). Source: arXiv 1704.00028,
    equation 3.
    """
    place = jax.vmap(jax.random.uniform)(keys).reshape(-1, *[1] * (real.ndim - 1))
    gradient = jax.grad(lambda x: logits_of(x).sum())(place * real + (1.0 - place) * fake)
    return (jnp.sqrt(_squared_norm(gradient) + MIN_SQUARED_NORM) - 1.0) ** 2


def path_length(
    synthesize: Callable, w: Float[Array, "B *layers D"], keys: Key[Array, "B"], mean: Number
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Path length regularization. Returns (penalties [B], path lengths [B]).

    A penalty is the squared difference between a path length and the running mean.

    synthesize: w -> pictures [B, H, W, C].
    w: [B, D], or [B, layers, D]. With layers, the path length is the root mean square over layers.
    keys: one per example, for the noise pictures.
    mean: the running mean of the path lengths.

    Source: arXiv 1912.04958, equation 4.
    """
    pictures, pull_back = jax.vjp(synthesize, w)
    noise = jax.vmap(lambda key: jax.random.normal(key, pictures.shape[1:], pictures.dtype))(keys)
    (gradient,) = pull_back(noise / (pictures.shape[1] * pictures.shape[2]) ** 0.5)
    layers = w.size // (w.shape[0] * w.shape[-1])
    lengths = jnp.sqrt(_squared_norm(gradient) / layers + MIN_SQUARED_NORM)
    return (lengths - mean) ** 2, lengths


def _squared_norm(x):
    """Return the squared norm of each example: [B, ...] -> [B]."""
    return jnp.square(x).reshape(x.shape[0], -1).sum(1)
