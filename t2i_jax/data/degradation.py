"""Pictures made smaller, as super-resolution gets them, and the plain way to make them larger.

All functions take float pictures [B, H, W, C] and are differentiable in them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from t2i_jax.core.types import AnyArray


def shrink(x: Float[AnyArray, "B H W C"], scale: int) -> Float[Array, "B h w C"]:
    """Return pictures of 1 / `scale` the sides, by bicubic interpolation with antialiasing.

    It is the bicubic filter of Pillow and MATLAB (a = -0.5), stretched by `scale`. Raises
    ValueError if `scale` does not divide both sides.
    """
    batch, height, width, channels = x.shape
    if height % scale or width % scale:
        raise ValueError(
            f"pictures of {width} x {height} px cannot be made {scale} times smaller: {scale} has "
            "to divide both sides"
        )
    return jax.image.resize(x, (batch, height // scale, width // scale, channels), "cubic")


def enlarge(x: Float[AnyArray, "B H W C"], scale: int) -> Float[Array, "B H2 W2 C"]:
    """Return pictures of `scale` times the sides, by bicubic interpolation (a = -0.5)."""
    batch, height, width, channels = x.shape
    return jax.image.resize(x, (batch, height * scale, width * scale, channels), "cubic")


def blur(
    x: Float[AnyArray, "B H W C"], keys: Key[Array, "B"], largest: float
) -> Float[Array, "B H W C"]:
    """Blur each picture by a Gaussian. Beyond the border is the nearest pixel of the border.

    largest: each picture's standard deviation is drawn uniformly from 0 to this, in pixels.
    """
    sigma = jax.vmap(lambda key: jax.random.uniform(key, (), maxval=largest))(keys)
    reach = int(3 * largest + 1)
    taps = jnp.arange(-reach, reach + 1)
    weights = jnp.exp(-0.5 * jnp.square(taps / jnp.maximum(sigma, 1e-3)[:, None]))
    weights = weights / weights.sum(1, keepdims=True)
    for axis in (1, 2):
        pad = [(0, 0)] * 4
        pad[axis] = (reach, reach)
        padded, side = jnp.pad(x, pad, mode="edge"), x.shape[axis]
        blurred: Any = sum(
            weights[:, tap, None, None, None]
            * jax.lax.slice_in_dim(padded, tap, tap + side, axis=axis)
            for tap in range(2 * reach + 1)
        )
        x = blurred
    return jnp.asarray(x)
