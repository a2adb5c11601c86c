"""A bidirectional transformer over [caption | image tokens] that fills in masked ones (arXiv 2202.04200, section 3.1)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict

from t2i_jax.models.code_vectors import CodeVectors
from t2i_jax.models.layers import Dense, matmul, sine_positions, sine_positions_2d
from t2i_jax.models.transformer import Transformer, window_table
from t2i_jax.text.condition import TextCondition


class MaskedTransformer(nn.Module):
    """Says for every place of a picture which token should be there, given the caption and the tokens that are not masked.

    Everything sees everything. What goes in at a place is a window of the tokens around it, mixed by one linear layer, and
    its position.

    codes: size of the image vocabulary.   grid: (height, width) of the token grid, read in row order.
    reach: of the window; 2 for 5 x 5 tokens.   block: of `Transformer`; with "rope", a caption gets no other positions.
    """

    codes: int
    grid: tuple[int, int]
    width: int = 128
    depth: int = 4
    heads: int = 4
    reach: int = 2
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False
    block: Mapping = FrozenDict()

    @property
    def length(self) -> int:
        """How many tokens a picture has."""
        return self.grid[0] * self.grid[1]

    @nn.compact
    def __call__(self, text: TextCondition, codes, masked, codebook, keys=None):
        """Logits float32 [B, N, codes] of image tokens `codes` int32 [B, N], of which those `masked` bool [B, N] are not seen.

        codebook: float [codes, D], what each code stands for.   keys [B]: for dropout.
        """
        (batch, limit), outside, mask = text.mask.shape, self.codes, self.codes + 1
        embed, head = CodeVectors(self.codes, 2, self.width, self.dtype, name="vectors")(codebook)
        caption = Dense(self.width, use_bias=False, dtype=self.dtype, name="text_in")(text.sequence)
        if not self.block.get("rope"):
            caption = caption + sine_positions(limit, self.width).astype(self.dtype)

        seen = jnp.pad(jnp.where(masked, mask, codes), ((0, 0), (0, 1)), constant_values=outside)
        # Cast after the look-up: its gradient is a sum over thousands of places, which bfloat16 would not hold.
        near = embed[seen[:, window_table(self.grid, self.reach)]].astype(self.dtype).reshape(batch, self.length, -1)
        image = Dense(self.width, use_bias=False, dtype=self.dtype, name="near")(near)
        image = image + sine_positions_2d(*self.grid, self.width).astype(self.dtype)

        present = jnp.pad(text.mask, ((0, 0), (0, self.length)), constant_values=True)[:, None, None, :]
        trunk = Transformer(self.depth, self.heads, self.dropout, self.dtype, self.remat, self.block, name="trunk")
        x, _ = trunk(jnp.concatenate([caption, image], axis=1), present, keys)
        return matmul(x[:, limit:], head).astype(jnp.float32)
