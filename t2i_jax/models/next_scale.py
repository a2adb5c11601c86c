"""A transformer over [caption | grids of image tokens, coarse to fine] that says a whole grid at once (arXiv 2404.02905)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from t2i_jax.models.code_vectors import CodeVectors
from t2i_jax.models.layers import Dense, matmul, sine_positions, sines
from t2i_jax.models.transformer import Transformer
from t2i_jax.text.condition import TextCondition


class NextScale(nn.Module):
    """The tokens of each grid, given the caption and all coarser grids; those of one grid do not wait for one another.

    codes: size of the image vocabulary.   scales: sides of the grids, coarse to fine.   block: of `Transformer`.
    """

    codes: int
    scales: tuple[int, ...]
    width: int = 128
    depth: int = 4
    heads: int = 4
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False
    block: Mapping = FrozenDict()

    @nn.compact
    def __call__(self, text: TextCondition, coarse, codebook, keys=None):
        """Logits float32 [B, N, codes] of the tokens of all grids.

        coarse: float [B, N, D], the picture at each place as all grids coarser than that of the place have it: zeros at the
        first.   codebook: float [codes, D].   keys [B]: for dropout.
        """
        limit = text.mask.shape[1]
        _, head = CodeVectors(self.codes, None, self.width, self.dtype, name="vectors")(codebook)
        caption = Dense(self.width, use_bias=False, dtype=self.dtype, name="text_in")(text.sequence)
        caption = caption + sine_positions(limit, self.width).astype(self.dtype)

        look, near = nn.Conv(self.width, (3, 3), use_bias=False, dtype=self.dtype, name="look"), []
        for side, first, last in spans(self.scales):
            around = look(coarse[:, first:last].reshape(-1, side, side, coarse.shape[-1]))
            near.append(around.reshape(-1, side**2, self.width))
        of_scale = self.param("scale", nn.initializers.normal(0.5), (len(self.scales), self.width))
        which = np.repeat(np.arange(len(self.scales)), np.square(self.scales))
        image = jnp.concatenate(near, axis=1) + (positions(self.scales, self.width) + of_scale[which]).astype(self.dtype)

        trunk = Transformer(self.depth, self.heads, self.dropout, self.dtype, self.remat, self.block, name="trunk")
        x, _ = trunk(jnp.concatenate([caption, image], axis=1), scale_mask(text.mask, which), keys)
        return matmul(x[:, limit:], head).astype(jnp.float32)


def spans(scales) -> list[tuple[int, int, int]]:
    """(side, first, last + 1) of the places of each grid, one grid after another."""
    ends = np.cumsum(np.square(scales)).tolist()
    return [(side, end - side**2, end) for side, end in zip(scales, ends, strict=True)]


def positions(scales, width: int) -> np.ndarray:
    """Fixed positions [N, width] of all places, by where their middles lie in the finest grid: half of the channels for y."""
    parts = []
    for side in scales:
        y, x = ((np.mgrid[:side, :side].reshape(2, -1) + 0.5) * scales[-1] / side) - 0.5
        parts.append(np.concatenate([sines(y, width // 2), sines(x, width - width // 2)], axis=1))
    return np.concatenate(parts).astype(np.float32)


def scale_mask(text_mask, which):
    """Who may look at whom: bool [B, 1, L + N, L + N]. The caption at itself; a place at the caption and at all places whose
    grid, `which` int [N], is not finer than its own."""
    limit, grid = text_mask.shape[1], np.concatenate([np.full(text_mask.shape[1], -1), which])
    present = jnp.pad(text_mask, ((0, 0), (0, len(grid) - limit)), constant_values=True)
    return jnp.asarray(grid[:, None] >= grid)[None, None] & present[:, None, None, :]
