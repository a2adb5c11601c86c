"""A network that removes noise from the detail of an enlarged picture.

It is EDSR (arXiv 1707.02921, see edsr.py) with the noisy detail as a further input, whose time
modulates each block (arXiv 2104.07636). It works at the size of the small picture, where a square
of pixels is one cell, and has neither norms nor attention, so that it takes pictures of any size.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.models.layers import Dense, depth_to_space, sine_time, space_to_depth

TIME_CHANNELS = 256  # of the sine embeddings


class DetailDenoiser(nn.Module):
    """A network for detail of `scale` times the sides of the small picture.

    A pixel depends on the small picture's pixels up to 2 depth + 3 px away.

    scale: how many times as large the sides become.
    width: channels.
    depth: residual blocks.
    dtype: of the computation; parameters are float32.
    """

    scale: int
    width: int = 64
    depth: int = 8
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W 3"],
        small: Float[Array, "B h w 3"],
        t: Float[Array, "B"],
        level: Float[Array, "B"],
    ) -> Float[Array, "B H W 3"]:
        """Return the prediction for noisy detail x at times t in [0, 1], in float32.

        small: the small picture, in about [-1, 1].
        level: in [0, 1], how much noise was added to it.
        """

        def conv(features, name, **more):
            return nn.Conv(features, (3, 3), dtype=self.dtype, name=name, **more)

        times = [sine_time(value, TIME_CHANNELS) for value in (t, level)]
        condition = Dense(self.width, dtype=self.dtype, name="times")(jnp.concatenate(times, 1))
        condition = nn.silu(condition)
        cells = jnp.concatenate([space_to_depth(x, self.scale), small], axis=-1)
        first = y = conv(self.width, "conv_in")(cells)
        for i in range(self.depth):
            parts = Dense(2 * self.width, dtype=self.dtype, name=f"modulation_{i}")(condition)
            factor, shift = jnp.split(parts[:, None, None], 2, axis=-1)
            inner = nn.relu(conv(self.width, f"block_{i}_conv_0")(y) * (1.0 + factor) + shift)
            y = y + conv(self.width, f"block_{i}_conv_1")(inner)
        y = nn.relu(first + conv(self.width, "conv_middle")(y))
        y = conv(3 * self.scale**2, "conv_out", kernel_init=nn.initializers.zeros)(y)
        return depth_to_space(y, self.scale).astype(jnp.float32)
