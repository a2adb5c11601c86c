"""Penalties on the gradients of a network by its input; they can be differentiated again, by its parameters.

Each takes the gradient of a sum over the batch, which holds the gradient of every example. Where a network looks across
examples (minibatch standard deviation), the gradient by one picture includes its effect on the others.
"""

import jax
import jax.numpy as jnp

TINY = 1e-12  # under the square root, whose derivative at zero is infinite


def _squared_norm(x):
    """[B, ...] -> [B]."""
    return jnp.square(x).reshape(x.shape[0], -1).sum(1)


def r1(logits_of, x):
    """Half the squared norm [B] of the gradient of `logits_of` (x -> [B]) at x [B, ...] (arXiv 1801.04406, equation 9)."""
    return 0.5 * _squared_norm(jax.grad(lambda x: logits_of(x).sum())(x))


def gradient_penalty(logits_of, real, fake, keys):
    """(|gradient| - 1)² [B] at a random place between real and fake [B, ...] (arXiv 1704.00028, equation 3).

    logits_of: x -> [B].   keys: [B], one for each place. The weight of the penalty (10 in the paper) is the caller's.
    """
    place = jax.vmap(jax.random.uniform)(keys).reshape(-1, *[1] * (real.ndim - 1))
    gradient = jax.grad(lambda x: logits_of(x).sum())(place * real + (1.0 - place) * fake)
    return (jnp.sqrt(_squared_norm(gradient) + TINY) - 1.0) ** 2


def path_length(synthesize, w, keys, mean):
    """How far the pictures' rate of change along w is from its running mean: (penalty [B], lengths [B]).

    synthesize: w -> pictures [B, H, W, C].   w: [B, D], or [B, layers, D], whose length is the root of the mean square over
    the layers.   keys: [B], for the noise pictures.   mean: [], the running mean of lengths. (arXiv 1912.04958, equation 4)
    """
    pictures, pull = jax.vjp(synthesize, w)
    noise = jax.vmap(lambda key: jax.random.normal(key, pictures.shape[1:], pictures.dtype))(keys)
    (gradient,) = pull(noise / (pictures.shape[1] * pictures.shape[2]) ** 0.5)
    layers = w.size // (w.shape[0] * w.shape[-1])
    lengths = jnp.sqrt(_squared_norm(gradient) / layers + TINY)
    return (lengths - mean) ** 2, lengths
