"""A transformer over [caption | grids of image tokens, coarse to fine] that predicts whole grids.

Source: arXiv 2404.02905.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float, Int, Key

from t2i_jax.core.text import TextCondition
from t2i_jax.core.types import AnyArray
from t2i_jax.models.code_vectors import CodeVectors
from t2i_jax.models.layers import Dense, add_positions, matmul, sine_embedding_2d
from t2i_jax.models.transformer import Transformer


class NextScale(nn.Module):
    """A predictor of the tokens of each grid from the caption and all coarser grids.

    All tokens of one grid are predicted independently of one another.

    codes: size of the image vocabulary.
    scales: sides of the grids, coarse to fine.
    width: channels of a token.
    depth: number of blocks.
    heads: attention heads per block.
    dropout: probability of dropping a number of a residual branch in training.
    dtype: of the computation; parameters are float32.
    remat: what the backward pass computes again (models/recompute.py).
    block: other fields of the blocks (see `transformer.Block`).
    """

    codes: int
    scales: tuple[int, ...]
    width: int = 128
    depth: int = 4
    heads: int = 4
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: str = "none"
    block: Mapping = FrozenDict()

    @nn.compact
    def __call__(
        self,
        text: TextCondition,
        coarse: Float[AnyArray, "B N D"],
        codebook: Float[AnyArray, "codes D"],
        keys: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B N codes"]:
        """Return logits of the tokens of all grids, one grid after another.

        coarse: for each place, the picture as all coarser grids describe it; zeros for the first.
        codebook: the vector of each code.
        keys: for dropout; None for no dropout.
        """
        limit = text.mask.shape[1]
        _, head = CodeVectors(self.codes, None, self.width, self.dtype, name="vectors")(codebook)
        caption = Dense(self.width, use_bias=False, dtype=self.dtype, name="text_in")(text.sequence)
        caption = add_positions(caption)

        conv, cells = nn.Conv(self.width, (3, 3), use_bias=False, dtype=self.dtype, name="look"), []
        for side, first, last in spans(self.scales):
            around = conv(coarse[:, first:last].reshape(-1, side, side, coarse.shape[-1]))
            cells.append(around.reshape(-1, side**2, self.width))
        of_scale = self.param("scale", nn.initializers.normal(0.5), (len(self.scales), self.width))
        scale_index = np.repeat(np.arange(len(self.scales)), np.square(self.scales))
        image = jnp.concatenate(cells, axis=1) + (
            scale_positions(self.scales, self.width) + of_scale[scale_index]
        ).astype(self.dtype)

        trunk = Transformer(
            self.depth, self.heads, self.dropout, self.dtype, self.remat, self.block, name="trunk"
        )
        x = jnp.concatenate([caption, image], axis=1)
        x, _ = trunk(x, scale_mask(text.mask, scale_index), keys)
        return matmul(x[:, limit:], head).astype(jnp.float32)


def spans(scales: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (side, first, last + 1) of the places of each grid, one grid after another."""
    ends = np.cumsum(np.square(scales)).tolist()
    return [(side, end - side**2, end) for side, end in zip(scales, ends, strict=True)]


def scale_positions(scales: Sequence[int], width: int) -> Float[np.ndarray, "N {width}"]:
    """Return fixed positions of the places of all grids, by where their middles lie.

    The unit of length is a cell of the finest grid.
    """
    parts = []
    for side in scales:
        y, x = ((np.mgrid[:side, :side].reshape(2, -1) + 0.5) * scales[-1] / side) - 0.5
        parts.append(sine_embedding_2d(y, x, width))
    return np.concatenate(parts).astype(np.float32)


def scale_mask(
    text_mask: Bool[Array, "B L"], scale_index: Int[np.ndarray, "N"]
) -> Bool[Array, "B 1 S S"]:
    """Return which places may attend to which, with S = L + N.

    The caption attends to itself. An image token attends to the caption and to all image tokens
    whose grid is not finer than its own.
    scale_index: the grid of each image token.
    """
    limit, grid = text_mask.shape[1], np.concatenate([np.full(text_mask.shape[1], -1), scale_index])
    present = jnp.pad(text_mask, ((0, 0), (0, len(grid) - limit)), constant_values=True)
    return jnp.asarray(grid[:, None] >= grid)[None, None] & present[:, None, None, :]
