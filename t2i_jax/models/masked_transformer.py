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
from t2i_jax.models.code_parts import CodeParts, split_codes
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
    parts: of codes with two parts, how many values each has (see `CodeParts`).
    local: the hidden layer of a block sees some channels of the tokens beside its own
        (`with_neighbours`), and a linear layer adds what enters to the output.
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
    parts: tuple[int, ...] = ()
    local: bool = False

    def setup(self):
        def dense():
            return Dense(self.width, use_bias=False, dtype=self.dtype)

        self.text_in, self.near = dense(), dense()
        # The additional rows stand for the outside of the picture and for a masked token.
        self.vectors = CodeVectors(self.codes, 2, self.width, self.dtype, self.parts)
        if self.parts:
            self.code_parts = CodeParts(self.parts, self.width, self.dtype)
        sizes = (self.depth, self.heads, self.dropout, self.dtype, self.remat, self.block)
        self.trunk = Transformer(*sizes, self.grid if self.local else None)
        if self.local:
            self.skip = dense()

    @property
    def length(self) -> int:
        """Number of tokens of a picture."""
        return self.grid[0] * self.grid[1]

    def __call__(
        self,
        text: TextCondition,
        codes: Int[AnyArray, "B N"],
        masked: Bool[AnyArray, "B N"],
        codebook: Float[AnyArray, "codes D"],
        keys: Key[Array, "B"] | None = None,
        true: Int[AnyArray, "B N"] | None = None,
    ) -> tuple[Float[Array, "B N _"], ...]:
        """Return the logits of each part of the codes; of the second, given the true first.

        codes: image tokens; those where `masked` is True have no influence on other places, nor on
            the logits of their own first part.
        codebook: the vector of each code.
        keys: for dropout; None for no dropout.
        true: the true codes, where some of `codes` are wrong.
        """
        hidden = self.hidden(text, codes, masked, codebook, keys)
        if not self.parts:
            return (self.first_part(hidden),)
        first = split_codes(codes if true is None else true, self.parts)[0]
        return self.first_part(hidden), self.second_part(hidden, first)

    def hidden(
        self,
        text: TextCondition,
        codes: Int[AnyArray, "B N"],
        masked: Bool[AnyArray, "B N"],
        codebook: Float[AnyArray, "codes D"],
        keys: Key[Array, "B"] | None = None,
    ) -> tuple[Float[Array, "B N width"], Float[Array, "width _"]]:
        """Return (the output of the blocks for the image tokens, the output vectors of codes).

        Arguments are those of `__call__`; masked codes have no influence at all.
        """
        (batch, limit), outside, mask = text.mask.shape, self.codes, self.codes + 1
        embed, head = self.vectors(codebook)
        caption = self.text_in(text.sequence)
        if not self.block.get("rope"):
            caption = add_positions(caption)

        seen = jnp.pad(jnp.where(masked, mask, codes), ((0, 0), (0, 1)), constant_values=outside)
        # Cast after the look-up: its gradient is a sum over thousands of places, for which bfloat16
        # is too coarse.
        near = embed[seen[:, window_table(self.grid, self.reach)]].astype(self.dtype)
        image = add_positions(self.near(near.reshape(batch, self.length, -1)), self.grid)

        present = jnp.pad(text.mask, ((0, 0), (0, self.length)), constant_values=True)[
            :, None, None, :
        ]
        x, _ = self.trunk(jnp.concatenate([caption, image], axis=1), present, keys)
        x = x[:, limit:] + self.skip(image) if self.local else x[:, limit:]
        return x, head

    def first_part(self, hidden: tuple) -> Float[Array, "B N _"]:
        """Return the logits of the codes, or of their first part. hidden: see `hidden`."""
        x, head = hidden
        logits = self.code_parts.first(x, head) if self.parts else matmul(x, head)
        return logits.astype(jnp.float32)

    def second_part(self, hidden: tuple, first: Int[AnyArray, "B N"]) -> Float[Array, "B N _"]:
        """Return the logits of the second part of codes, given the first. hidden: see `hidden`."""
        x, head = hidden
        return self.code_parts.second(x, head, first).astype(jnp.float32)
