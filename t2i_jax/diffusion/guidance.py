"""Classifier-free guidance (arXiv 2207.12598). Scale, rescale and interval are traced: a change recompiles nothing."""

import jax.numpy as jnp


def combine(cond, uncond, scale, rescale=0.0):
    """The guided prediction [B, ...]: uncond + scale (cond - uncond) (scale is 1 + w of arXiv 2207.12598, equation 6).

    rescale in [0, 1] pulls each example's standard deviation back to that of `cond` (arXiv 2305.08891, equations 14
    to 16). scale and rescale are numbers or broadcast against the predictions; a scale of 1 gives `cond` exactly.
    """
    guided = cond + (scale - 1.0) * (cond - uncond)
    axes = tuple(range(1, cond.ndim))
    ratio = jnp.std(cond, axes, keepdims=True) / jnp.maximum(jnp.std(guided, axes, keepdims=True), 1e-12)
    return jnp.where(jnp.asarray(scale) == 1.0, cond, guided * (1.0 + rescale * (ratio - 1.0)))


def scale_at(t, scale, low=0.0, high=1.0):
    """`scale` where low <= t <= high, and 1 elsewhere (arXiv 2404.07724, with its noise levels as our times)."""
    return jnp.where((low <= t) & (t <= high), scale, 1.0)
