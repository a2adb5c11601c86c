"""A decoder that continues a caption with image tokens."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float, Int, Key

from t2i_jax.core.text import TextCondition
from t2i_jax.core.types import AnyArray
from t2i_jax.models.code_parts import CodeParts, split_codes
from t2i_jax.models.code_vectors import CodeVectors
from t2i_jax.models.layers import Dense, add_positions, matmul, sine_positions_2d
from t2i_jax.models.transformer import Transformer, window_table


def neighbour_table(grid: tuple[int, int]) -> Int[np.ndarray, "N 12"]:
    """Return the places before each place in its window of reach 2.

    These are the two rows above and two places to the left.
    """
    return window_table(grid, 2)[:, :12]


class PrefixDecoder(nn.Module):
    """A decoder over [caption | image tokens]: bidirectional over the caption, then causal.

    Two things let it learn within minutes (docs/recipes.md). The vectors of a token are those of
    `CodeVectors`. And the input of a place is not only the token before it: the tokens of its row
    of `neighbour_table` are combined by one linear layer, because in raster order the token above
    is a whole row away.

    codes: size of the image vocabulary.
    grid: (height, width) of the token grid, read in row order.
    width: channels of a token.
    depth: number of blocks.
    heads: attention heads per block; they divide the width.
    dropout: probability of dropping a number of a residual branch in training.
    dtype: of the computation; parameters are float32.
    remat: what the backward pass computes again (models/recompute.py).
    block: other fields of the blocks (see `transformer.Block`); with "rope", a caption gets no
        other positions.
    parts: of codes with two parts, how many values each has (see `CodeParts`).
    causal_text: whether a token of the caption attends only to earlier ones. The decoder is then a
        language model with the codes as additional words: the vectors of the caption, those of
        text/language_model.py, enter the blocks unchanged.
    """

    codes: int
    grid: tuple[int, int]
    width: int = 128
    depth: int = 6
    heads: int = 4
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: str = "none"
    block: Mapping = FrozenDict()
    causal_text: bool = False
    parts: tuple[int, ...] = ()

    def setup(self):
        def dense(features, use_bias=False):
            return Dense(features, use_bias=use_bias, dtype=self.dtype)

        if not self.causal_text:
            self.text_in = dense(self.width)
        # The additional row stands for the outside of the picture.
        self.vectors = CodeVectors(self.codes, 1, self.width, self.dtype, self.parts)
        if self.parts:
            self.code_parts = CodeParts(self.parts, self.width, self.dtype)
        self.near = dense(self.width)
        self.trunk = Transformer(
            self.depth, self.heads, self.dropout, self.dtype, self.remat, self.block
        )

    @property
    def length(self) -> int:
        """Number of tokens of a picture."""
        return self.grid[0] * self.grid[1]

    def _caption(self, text: TextCondition):
        """Return the inputs [B, L, width] of a caption."""
        width = text.sequence.shape[-1]
        if not self.causal_text:
            x = self.text_in(text.sequence)
            return x if self.block.get("rope") else add_positions(x)
        if width != self.width:
            raise ValueError(
                f"model.causal_text: the caption's vectors are of width {width}; they must be of "
                f"{self.width}"
            )
        return text.sequence.astype(self.dtype)

    def _tokens(self, embed, codes, neighbours, positions):
        """Return the inputs [B, n, width] of n places.

        codes: [B, N], of the whole picture.
        neighbours, positions: the rows of these places in `neighbour_table` and in the positions.
        """
        outside = jnp.full((codes.shape[0], 1), self.codes, codes.dtype)
        # Cast after the look-up: its gradient is a sum over thousands of places, for which bfloat16
        # is too coarse.
        near = embed[jnp.concatenate([codes, outside], axis=1)[:, neighbours]].astype(self.dtype)
        return self.near(near.reshape(*near.shape[:2], -1)) + positions.astype(self.dtype)

    def __call__(
        self,
        text: TextCondition,
        codes: Int[AnyArray, "B N"],
        codebook: Float[AnyArray, "codes D"],
        keys: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B N codes"]:
        """Return teacher-forced logits of the image tokens, each from the tokens before it.

        codebook: the vector of each code.
        keys: for dropout; None for no dropout.
        """
        return self._logits(*self._hidden(text, codes, codebook, keys))

    def part_logits(
        self,
        text: TextCondition,
        codes: Int[AnyArray, "B N"],
        codebook: Float[AnyArray, "codes D"],
        keys: Key[Array, "B"] | None = None,
    ) -> tuple[Float[Array, "B N _"], ...]:
        """Return the logits of each part of the codes; of the second, given the true first.

        Of codes with one part, these are those of `__call__`.
        """
        x, head = self._hidden(text, codes, codebook, keys)
        if not self.parts:
            return (self._logits(x, head),)
        return self.code_parts(x, head, split_codes(codes, self.parts)[0])

    def _logits(self, x, head):
        """Return logits [B, n, codes] of the trunk's output [B, n, width]."""
        if self.parts:
            return self.code_parts.joint(x, head)
        return matmul(x, head).astype(jnp.float32)

    def _hidden(self, text, codes, codebook, keys):
        """Return (the trunk's output [B, N, width] for the image tokens, output vectors)."""
        limit, (embed, head) = text.mask.shape[1], self.vectors(codebook)
        image = self._tokens(
            embed, codes, neighbour_table(self.grid), sine_positions_2d(*self.grid, self.width)
        )
        x = jnp.concatenate([self._caption(text), image], axis=1)
        x, _ = self.trunk(x, prefix_mask(text.mask, self.length, self.causal_text), keys)
        return x[:, limit:], head

    def prefill(self, text: TextCondition, codebook: Float[AnyArray, "codes D"]):
        """Run the caption once. Return the carry of `decode_step`.

        It is (code vectors, caches, the trunk's output [B, width] for the last token).
        """
        batch, limit = text.mask.shape
        caches = self.trunk.empty_caches(batch, limit + self.length, self.width)
        mask = prefix_mask(text.mask, self.length, self.causal_text)[:, :, :limit]
        x, caches = self.trunk(self._caption(text), mask, None, caches, 0)
        return self.vectors(codebook), caches, x[:, -1]

    def decode_step(
        self,
        text_mask: Bool[Array, "B L"],
        carry: tuple,
        codes: Int[Array, "B N"],
        i: int | Int[Array, ""],
    ) -> tuple[Float[Array, "B _"], tuple]:
        """Return (logits of image token i, the new carry).

        Of codes with two parts, these are the logits of the first part.
        carry: of `prefill` or of the step before.
        codes: image tokens, of which those before i are drawn already.
        """
        (embed, head), caches, _ = carry
        batch, limit = text_mask.shape
        places = (neighbour_table(self.grid), sine_positions_2d(*self.grid, self.width))
        at_i = (jax.lax.dynamic_slice_in_dim(jnp.asarray(rows), i, 1) for rows in places)
        x = self._tokens(embed, codes, *at_i)
        image_mask = jnp.broadcast_to(jnp.arange(self.length) <= i, (batch, self.length))
        mask = jnp.concatenate([text_mask, image_mask], axis=1)[:, None, None, :]
        x, caches = self.trunk(x, mask, None, caches, limit + i)
        x = x[:, 0]
        logits = self.code_parts.first(x, head) if self.parts else matmul(x, head)
        return logits.astype(jnp.float32), ((embed, head), caches, x)

    def second_part(self, carry: tuple, first: Int[Array, "B"]) -> Float[Array, "B _"]:
        """Return the logits of the second part of a token, given its first part.

        carry: of the `decode_step` that gave the logits of the first part.
        """
        (_, head), _, x = carry
        return self.code_parts.second(x, head, first).astype(jnp.float32)


def prefix_mask(
    text_mask: Bool[Array, "B L"], length: int, causal_text: bool = False
) -> Bool[Array, "B 1 S S"]:
    """Return which places of [caption | image] may attend to which, with S = L + length.

    Each place attends to itself and to those before it, and unless `causal_text` is set to the
    whole caption.
    length: number of image tokens.
    """
    batch, limit = text_mask.shape
    allowed = jnp.tril(jnp.ones((limit + length, limit + length), bool))
    if not causal_text:
        allowed = allowed.at[:, :limit].set(True)
    present = jnp.concatenate([text_mask, jnp.ones((batch, length), bool)], axis=1)
    return allowed[None, None] & present[:, None, None, :]
