"""The transformer of Stable Diffusion 3 (arXiv 2403.03206, section 4 and figure 2)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from t2i_jax.core.text import TextCondition
from t2i_jax.core.types import AnyArray
from t2i_jax.models.layers import Dense, depth_to_space, sine_embedding
from t2i_jax.models.mmdit import JointBlock, embed_condition, modulate, modulation
from t2i_jax.models.recompute import recomputed

VARIANTS = {
    "SD3-medium": dict(depth=24, heads=24, qk_norm=False),
    "SD3.5-medium": dict(depth=24, heads=24, qk_norm=True, dual=tuple(range(13)), max_grid=384),
    "SD3.5-large": dict(depth=38, heads=38, qk_norm=True),
}


class SD3Transformer(nn.Module):
    """A denoising transformer over patches of latents, jointly with the tokens of the text.

    depth: number of blocks.
    heads: attention heads per block.
    qk_norm: apply RMS norm to queries and keys.
    dual: the blocks with a second branch of attention, of the picture over itself.
    head_dim: channels per head; a token has heads * head_dim channels.
    patch: side of the square of latents that becomes one token.
    grid: side, in patches, of the pictures whose positions are 0, 1, ..., grid - 1.
    max_grid: side, in patches, of the largest picture. The table of positions has this side, and
        divides `grid` more finely.
    dtype: of the computation; parameters, norms and softmax are float32.
    remat: what the backward pass computes again (models/recompute.py).
    """

    depth: int = 24
    heads: int = 24
    qk_norm: bool = False
    dual: Sequence[int] = ()
    head_dim: int = 64
    patch: int = 2
    grid: int = 64
    max_grid: int = 192
    dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B h w C"], t: Float[AnyArray, "B"], text: TextCondition
    ) -> Float[Array, "B h w C"]:
        """Return the velocity for latents x at times t in [0, 1], in float32; t = 1 is noise.

        text: `sequence` is attended to, padding too, so that `mask` is not used; `pooled`
            modulates the norms.
        Raises ValueError for sides that are no multiple of `patch`, or more than `max_grid`
        patches.
        """
        width, p = self.heads * self.head_dim, self.patch
        rows, columns = self._grid(x.shape)
        init = nn.initializers.zeros
        condition = embed_condition(t, text, width, self.dtype)
        words = Dense(width, dtype=self.dtype, name="text_in")(text.sequence)
        x_in = nn.Conv(width, (p, p), (p, p), "VALID", dtype=self.dtype, name="patch_in")(x)
        # A constant, although it is among the parameters: published files have their own table.
        table = self.param("positions", _positions, self.grid, self.max_grid, width)
        top, left = (self.max_grid - rows) // 2, (self.max_grid - columns) // 2
        table = jax.lax.stop_gradient(table).reshape(self.max_grid, self.max_grid, width)
        table = table[top : top + rows, left : left + columns]
        y = (x_in + table.astype(self.dtype)).reshape(x.shape[0], rows * columns, width)
        joint = recomputed(JointBlock, self.remat)
        for i in range(self.depth):
            last, dual = i == self.depth - 1, i in self.dual
            block = joint(self.heads, self.qk_norm, last, dual, self.dtype, name=f"block_{i}")
            y, words = block(y, words, condition)
        scale, shift = modulation(condition, 2, self.dtype, "modulation_out")
        y = modulate(y, scale, shift, self.dtype)
        y = Dense(p * p * x.shape[-1], kernel_init=init, dtype=self.dtype, name="patch_out")(y)
        return depth_to_space(y.reshape(x.shape[0], rows, columns, -1), p).astype(jnp.float32)

    def _grid(self, shape) -> tuple[int, int]:
        _, height, width, _ = shape
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"latents of {height} x {width} are not made of patches of {self.patch} x "
                f"{self.patch}"
            )
        rows, columns = height // self.patch, width // self.patch
        if max(rows, columns) > self.max_grid:
            raise ValueError(
                f"latents of {height} x {width} are {rows} x {columns} patches; this network has "
                f"positions for at most {self.max_grid} x {self.max_grid}"
            )
        return rows, columns


def _positions(key, grid, max_grid, width) -> Float[Array, "1 N width"]:
    """Return sines and cosines of the column, then of the row, of max_grid * max_grid patches."""
    del key
    line = sine_embedding(np.arange(max_grid) * (grid / max_grid), width // 2)
    shape = (max_grid, max_grid, width // 2)
    line = jnp.asarray(line, jnp.float32)
    columns, rows = jnp.broadcast_to(line, shape), jnp.broadcast_to(line[:, None], shape)
    return jnp.concatenate([columns, rows], axis=-1).reshape(1, -1, width)
