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
    if isinstance(rescale, float) and rescale == 0.0:  # not traced
        return jnp.where(jnp.asarray(scale) == 1.0, cond, prediction)
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


def projected(
    cond: Float[Array, "B *rest"],
    difference: Float[Array, "B *rest"],
    scale: Numbers,
    parallel: Numbers = 0.0,
    limit: Numbers = jnp.inf,
) -> Float[Array, "B *rest"]:
    """Return cond + (scale - 1) * update: adaptive projected guidance (arXiv 2410.02416).

    The update is `difference`, shortened, without most of what is parallel to `cond`: that part
    saturates colours. With the default of the paper, `parallel` 0, none of it is left; with 1 and
    no limit this is `guided`.

    cond: the prediction of x0 with the condition.
    difference: cond - uncond. With momentum b (section 4 of the paper; negative), it is
        cond - uncond + b times the difference of the step before.
    parallel: eta, the weight of the part that is parallel to `cond`.
    limit: r, the largest norm of the difference of an example.
    scale, parallel, limit: numbers, or arrays that broadcast against `cond`.
    """
    axes = tuple(range(1, cond.ndim))
    norm = jnp.sqrt(jnp.sum(difference**2, axes, keepdims=True))
    difference = difference * jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-12))
    along = _share(difference, cond) * cond
    return cond + (scale - 1.0) * (difference - along + parallel * along)


def zero_star(
    cond: Float[Array, "B *rest"], uncond: Float[Array, "B *rest"], scale: Numbers
) -> Float[Array, "B *rest"]:
    """Return `guided` with the unconditional prediction at its best length (CFG-Zero*).

    `uncond` is multiplied, for each example, by the number that brings it nearest to `cond`
    (arXiv 2503.18886, equation 11). The predictions are velocities of a rectified flow.
    """
    return guided(cond, _share(cond, uncond) * uncond, scale)


def zero_before(
    prediction: Float[Array, "B *rest"], t: Numbers, first: Numbers = 1.0
) -> Float[Array, "B *rest"]:
    """Return 0 where t > first, and `prediction` elsewhere: the zero-init of CFG-Zero*.

    A velocity of 0 leaves x as it is. Early in training and early in sampling that is nearer to the
    truth than the network is (arXiv 2503.18886, section 4.2).

    first: the time of the first step that is made: times[K] for K steps without a move.
    """
    return jnp.where(jnp.asarray(t) > first, 0.0, prediction)


def _share(a, b):
    """Return <a, b> / <b, b> of each example, [B, 1, ...]: the part of `a` along `b`."""
    axes = tuple(range(1, a.ndim))
    product, square = jnp.sum(a * b, axes, keepdims=True), jnp.sum(b * b, axes, keepdims=True)
    return product / jnp.maximum(square, 1e-12)
