"""What a model can do that has one vector for each picture, and a normal distribution over it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.family import Variables
from t2i_jax.core.random import draw_normal

INTERPOLATE = {"steps": 8}  # pictures on the way, both ends included


def make_abilities(size: int, encode: Callable, decode: Callable) -> dict[str, Callable]:
    """Return the abilities, of which `encode` and `decode` are two.

    size: of the vector.
    encode: (variables, inputs with "image", keys or None) -> float [B, size].
    decode: (variables, inputs with "latent") -> uint8 [B, H, W, 3].
    """

    def sample(variables: Variables, inputs, keys, *, temperature):
        """Draw pictures uint8 [B, H, W, 3], each from a draw of its vector."""
        z = temperature * draw_normal(keys, (size,))
        return decode(variables, {**inputs, "latent": z})

    def reconstruct(variables: Variables, inputs, keys=None):
        """Encode and decode inputs["image"]; `keys` as in `encode`."""
        return decode(variables, {**inputs, "latent": encode(variables, inputs, keys)})

    def interpolate(variables: Variables, inputs, keys=None, *, steps: int = INTERPOLATE["steps"]):
        """Draw the way from inputs["image"] to inputs["image_b"]: uint8 [B, steps, H, W, 3].

        It includes both ends.
        """
        first, last = (
            encode(variables, {**inputs, "image": inputs[end]}) for end in ("image", "image_b")
        )
        way = spherical_interpolation(first, last, jnp.linspace(0.0, 1.0, steps))
        drawn = jax.lax.map(
            lambda z: decode(variables, {**inputs, "latent": z}), way.swapaxes(0, 1)
        )
        return drawn.swapaxes(0, 1)

    return {
        "sample": sample,
        "encode": encode,
        "decode": decode,
        "reconstruct": reconstruct,
        "interpolate": interpolate,
    }


def spherical_interpolation(
    a: Float[Array, "B Z"], b: Float[Array, "B Z"], t: Float[Array, "T"]
) -> Float[Array, "B T Z"]:
    """Return the codes at the times `t` on the arcs from `a` (time 0) to `b` (time 1).

    In many dimensions a straight line comes nearer to 0 than draws from the prior ever are. Where
    `a` and `b` point in the same or in opposite directions, the way is straight. Source: Shoemake,
    SIGGRAPH 1985.
    """
    a, b, t = a[:, None], b[:, None], t[None, :, None]
    lengths = jnp.linalg.norm(a, axis=-1, keepdims=True) * jnp.linalg.norm(
        b, axis=-1, keepdims=True
    )
    angle = jnp.arccos(
        jnp.clip(jnp.sum(a * b, -1, keepdims=True) / jnp.maximum(lengths, 1e-12), -1.0, 1.0)
    )
    sine = jnp.sin(angle)
    safe = jnp.where(sine > 1e-3, sine, 1.0)
    arc = (jnp.sin((1 - t) * angle) * a + jnp.sin(t * angle) * b) / safe
    return jnp.where(sine > 1e-3, arc, (1 - t) * a + t * b)
