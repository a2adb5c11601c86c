"""Conversions of pictures on the device: uint8 and [-1, 1], grey and colour."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Num, UInt8

from t2i_jax.core.types import AnyArray


def to_unit(image: Num[AnyArray, "*shape"]) -> Float32[Array, "*shape"]:
    """Return pictures of levels from 0 to 255 as float32 in [-1, 1]."""
    return jnp.asarray(image).astype(jnp.float32) / 127.5 - 1.0


def from_unit(image: Float[AnyArray, "*shape"]) -> UInt8[Array, "*shape"]:
    """Return pictures in [-1, 1] as uint8, rounded and clipped."""
    return jnp.clip(jnp.round((image.astype(jnp.float32) + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def to_channels(
    image: Float[AnyArray, "B H W 3"], channels: int
) -> Float[AnyArray, "B H W {channels}"]:
    """Return pictures with 3 channels (colour), or with 1 (grey), which is their mean.

    Raises ValueError for any other number of channels.
    """
    if channels not in (1, 3):
        raise ValueError(f"model.channels is {channels}: pictures have 3 (colour) or 1 (grey)")
    return image if channels == 3 else image.mean(-1, keepdims=True)


def to_rgb(image: Float[AnyArray, "B H W #3"]) -> Float[Array, "B H W 3"]:
    """Return pictures with 1 or 3 channels as pictures with 3."""
    return jnp.broadcast_to(image, (*image.shape[:3], 3))
