"""A decoder that continues a picture with words: the counterpart of prefix_decoder.py."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float, Int, Key

from t2i_jax.core.types import AnyArray
from t2i_jax.models.layers import add_positions, matmul
from t2i_jax.models.prefix_decoder import prefix_mask
from t2i_jax.models.transformer import Cache, Transformer


class WordDecoder(nn.Module):
    """A decoder over [picture | words]: bidirectional over the picture, causal over the words.

    The input of a place of the picture are the vectors of the 3 x 3 places around it, combined by
    one linear layer, because what is rarely in a picture fills a single place. The input of a word
    is the word before it.

    vocab_size: number of words.
    length: the longest caption, in words.
    grid: (rows, columns) of the vectors of a picture, in row order.
    width: channels of a token.
    depth: number of blocks.
    heads: attention heads per block; they divide the width.
    dropout: probability of dropping a number of a residual branch in training.
    dtype: of the computation; parameters are float32.
    remat: what the backward pass computes again (models/recompute.py).
    block: other fields of the blocks (see `transformer.Block`); with "rope", words get no other
        positions.
    """

    vocab_size: int
    length: int
    grid: tuple[int, int]
    width: int = 128
    depth: int = 4
    heads: int = 4
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: str = "none"
    block: Mapping = FrozenDict()

    def setup(self):
        self.look = nn.Conv(self.width, (3, 3), use_bias=False, dtype=self.dtype)
        # The additional row comes before the first word.
        self.embed = self.param(
            "embed", nn.initializers.normal(0.5), (self.vocab_size + 1, self.width)
        )
        self.head = self.param("head", nn.initializers.zeros, (self.vocab_size, self.width))
        self.trunk = Transformer(
            self.depth, self.heads, self.dropout, self.dtype, self.remat, self.block
        )

    @property
    def places(self) -> int:
        """Number of vectors of a picture."""
        return self.grid[0] * self.grid[1]

    def _picture(self, picture):
        """Return the inputs [B, N, width] of a picture."""
        x = self.look(picture.reshape(len(picture), *self.grid, -1))
        return add_positions(x.reshape(*picture.shape[:2], self.width), self.grid)

    def _words(self, tokens):
        """Return the inputs [B, length, width] of words: each depends on earlier tokens alone."""
        before = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=self.vocab_size)
        # Cast after the look-up: its gradient is a sum over many places, for which bfloat16 is too
        # coarse.
        x = self.embed[before].astype(self.dtype)
        return x if self.block.get("rope") else add_positions(x)

    def _logits(self, x):
        return matmul(x, self.head.T.astype(self.dtype)).astype(jnp.float32)

    def _mask(self):
        """Return which places and words may attend to which: bool [1, 1, S, S]."""
        return prefix_mask(jnp.ones((1, self.places), bool), self.length)

    def __call__(
        self,
        picture: Float[AnyArray, "B N D"],
        tokens: Int[AnyArray, "B length"],
        keys: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B length vocab_size"]:
        """Return teacher-forced logits of the words, each from the words before it.

        picture: a vector for each place, N = rows * columns.
        keys: for dropout; None for no dropout.
        """
        return self.with_picture(picture, tokens, keys)[0]

    def with_picture(
        self,
        picture: Float[AnyArray, "B N D"],
        tokens: Int[AnyArray, "B length"],
        keys: Key[Array, "B"] | None = None,
    ) -> tuple[Float[Array, "B length vocab_size"], Float[Array, "B width"]]:
        """Return (the logits of `__call__`, a vector of the picture, which no word has a part in).

        The vector is the mean over the places of the picture after the last norm.
        """
        x = jnp.concatenate([self._picture(picture), self._words(tokens)], axis=1)
        x, _ = self.trunk(x, self._mask(), keys)
        pooled = x[:, : self.places].mean(1).astype(jnp.float32)
        return self._logits(x[:, self.places :]), pooled

    def prefill(self, picture: Float[AnyArray, "B N D"]) -> list[Cache]:
        """Run the picture once. Return the caches that `decode_step` starts from."""
        caches = self.trunk.empty_caches(len(picture), self.places + self.length, self.width)
        x = self._picture(picture)
        return self.trunk(x, self._mask()[:, :, : self.places], None, caches, 0)[1]

    def decode_step(
        self, caches: list[Cache], tokens: Int[AnyArray, "B length"], i: int | Int[Array, ""]
    ) -> tuple[Float[Array, "B vocab_size"], list[Cache]]:
        """Return (logits of word i, the new caches).

        tokens: of which those before i are written already.
        """
        x = jax.lax.dynamic_slice_in_dim(self._words(tokens), i, 1, axis=1)
        mask = jax.lax.dynamic_slice_in_dim(self._mask(), self.places + i, 1, axis=2)
        x, caches = self.trunk(x, mask, None, caches, self.places + i)
        return self._logits(x[:, 0]), caches
