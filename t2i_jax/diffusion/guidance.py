"""Classifier-free guidance (arXiv 2207.12598).

Scale, rescale and interval may be traced, so a new value recompiles nothing.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.types import Numbers


def guided(
    cond: Float[Array, "*shape"], uncond: Float[Array, "*shape"], scale: Numbers
) -> Float[Array, "*shape"]:
    """Return cond + (scale - 1) * (cond - uncond), of the shape of `cond`.

    cond, uncond: the network's outputs with and without the condition: predictions of a diffusion
        model, or logits of a token model.
    scale: 1 + w of arXiv 2207.12598, equation 6. 1 is conditional, 0 unconditional. A number, or an
        array that broadcasts against `cond`.
    """
    return cond + (scale - 1.0) * (cond - uncond)


def combine(
    cond: Float[Array, "B *rest"],
    uncond: Float[Array, "B *rest"],
    scale: Numbers,
    rescale: Numbers = 0.0,
) -> Float[Array, "B *rest"]:
    """Return the prediction of `guided`, rescaled; exactly `cond` where `scale` is 1.

    rescale: in [0, 1], how far to move the standard deviation of each example to that of `cond`
        (arXiv 2305.08891, equations 14 to 16).
    scale, rescale: numbers, or arrays that broadcast against `cond`.
    """
    prediction = guided(cond, uncond, scale)
    axes = tuple(range(1, cond.ndim))
    ratio = jnp.std(cond, axes, keepdims=True) / jnp.maximum(
        jnp.std(prediction, axes, keepdims=True), 1e-12
    )
    rescaled = prediction * (1.0 + rescale * (ratio - 1.0))
    return jnp.where(jnp.asarray(scale) == 1.0, cond, rescaled)


def scale_at(
    t: Numbers, scale: Numbers, low: Numbers = 0.0, high: Numbers = 1.0
) -> Float[Array, "..."]:
    """Return `scale` where low <= t <= high, and 1 elsewhere.

    This is the guidance interval of arXiv 2404.07724, in our times instead of its noise levels.
    """
    return jnp.where((low <= t) & (t <= high), scale, 1.0)
