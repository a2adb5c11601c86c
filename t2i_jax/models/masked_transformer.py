"""A bidirectional transformer over [caption | image tokens] that fills in masked tokens.

Source: arXiv 2202.04200, section 3.1.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float, Int, Key

from t2i_jax.core.text import TextCondition
from t2i_jax.core.types import AnyArray
from t2i_jax.models.code_vectors import CodeVectors
from t2i_jax.models.layers import Dense, add_positions, matmul
from t2i_jax.models.transformer import Transformer, window_table


class MaskedTransformer(nn.Module):
    """A predictor of image tokens from the caption and the tokens that are not masked.

    Every place attends to every other. The input of a place is its position and the window of
    tokens around it, combined by one linear layer.

    codes: size of the image vocabulary.
    grid: (height, width) of the token grid, read in row order.
    width: channels of a token.
    depth: number of blocks.
    heads: attention heads per block.
    reach: of the window of tokens around each place; 2 for 5 x 5 tokens.
    dropout: probability of dropping a number of a residual branch in training.
    dtype: of the computation; parameters are float32.
    remat: what the backward pass computes again (models/recompute.py).
    block: other fields of the blocks (see `transformer.Block`); with "rope", a caption gets no
        other positions.
    """

    codes: int
    grid: tuple[int, int]
    width: int = 128
    depth: int = 4
    heads: int = 4
    reach: int = 2
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: str = "none"
    block: Mapping = FrozenDict()

    @property
    def length(self) -> int:
        """Number of tokens of a picture."""
        return self.grid[0] * self.grid[1]

    @nn.compact
    def __call__(
        self,
        text: TextCondition,
        codes: Int[AnyArray, "B N"],
        masked: Bool[AnyArray, "B N"],
        codebook: Float[AnyArray, "codes D"],
        keys: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B N codes"]:
        """Return logits of the image tokens.

        codes: image tokens; those where `masked` is True have no influence.
        codebook: the vector of each code.
        keys: for dropout; None for no dropout.
        """
        (batch, limit), outside, mask = text.mask.shape, self.codes, self.codes + 1
        embed, head = CodeVectors(self.codes, 2, self.width, self.dtype, name="vectors")(codebook)
        caption = Dense(self.width, use_bias=False, dtype=self.dtype, name="text_in")(text.sequence)
        if not self.block.get("rope"):
            caption = add_positions(caption)

        seen = jnp.pad(jnp.where(masked, mask, codes), ((0, 0), (0, 1)), constant_values=outside)
        # Cast after the look-up: its gradient is a sum over thousands of places, for which bfloat16
        # is too coarse.
        near = (
            embed[seen[:, window_table(self.grid, self.reach)]]
            .astype(self.dtype)
            .reshape(batch, self.length, -1)
        )
        image = Dense(self.width, use_bias=False, dtype=self.dtype, name="near")(near)
        image = add_positions(image, self.grid)

        present = jnp.pad(text.mask, ((0, 0), (0, self.length)), constant_values=True)[
            :, None, None, :
        ]
        trunk = Transformer(
            self.depth, self.heads, self.dropout, self.dtype, self.remat, self.block, name="trunk"
        )
        x, _ = trunk(jnp.concatenate([caption, image], axis=1), present, keys)
        return matmul(x[:, limit:], head).astype(jnp.float32)
