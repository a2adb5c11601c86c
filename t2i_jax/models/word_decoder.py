"""A decoder that continues a picture with words: the mirror image of models/transformer.py's PrefixDecoder."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from t2i_jax.models.layers import matmul, sine_positions, sine_positions_2d
from t2i_jax.models.transformer import Transformer, prefix_mask


class WordDecoder(nn.Module):
    """A decoder over [picture | words]: bidirectional over the vectors of a picture, causal over the words.

    What goes in at a place of the picture are the vectors of the 3 x 3 places around it, mixed by one linear layer: what is
    seen seldom keeps to one place. What goes in at a word is the word before it.

    vocab_size: of the words.   length: the most words.   grid: (rows, columns) of a picture's vectors, in row order.
    block: of `Transformer`; with "rope", words get no other positions.
    """

    vocab_size: int
    length: int
    grid: tuple[int, int]
    width: int = 128
    depth: int = 4
    heads: int = 4
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False
    block: Mapping = FrozenDict()

    def setup(self):
        self.look = nn.Conv(self.width, (3, 3), use_bias=False, dtype=self.dtype)
        # One row more than there are words: what goes before the first.
        self.embed = self.param("embed", nn.initializers.normal(0.5), (self.vocab_size + 1, self.width))
        self.head = self.param("head", nn.initializers.zeros, (self.vocab_size, self.width))
        self.trunk = Transformer(self.depth, self.heads, self.dropout, self.dtype, self.remat, self.block)

    @property
    def places(self) -> int:
        """How many vectors a picture has."""
        return self.grid[0] * self.grid[1]

    def _picture(self, seen):
        x = self.look(seen.reshape(len(seen), *self.grid, -1)).reshape(*seen.shape[:2], self.width)
        return x + sine_positions_2d(*self.grid, self.width).astype(self.dtype)

    def _words(self, tokens):
        """Inputs [B, length, width], of which each tells of the tokens before its place alone."""
        before = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=self.vocab_size)
        # Cast after the look-up: its gradient is a sum over many places, which bfloat16 would not hold.
        x = self.embed[before].astype(self.dtype)
        return x if self.block.get("rope") else x + sine_positions(self.length, self.width).astype(self.dtype)

    def _logits(self, x):
        return matmul(x, self.head.T.astype(self.dtype)).astype(jnp.float32)

    def _mask(self):
        """Who may look at whom: bool [1, 1, S, S] over all places and words."""
        return prefix_mask(jnp.ones((1, self.places), bool), self.length)

    def __call__(self, seen, tokens, keys=None):
        """Teacher-forced logits float32 [B, length, vocab_size] of tokens int32 [B, length], each given those before it.

        seen: float [B, rows * columns, D], what is seen at each place.   keys [B]: for dropout.
        """
        x = jnp.concatenate([self._picture(seen), self._words(tokens)], axis=1)
        x, _ = self.trunk(x, self._mask(), keys)
        return self._logits(x[:, self.places :])

    def prefill(self, seen):
        """Look at the picture once; gives what `decode_step` goes on from: a tree of arrays [B, ...]."""
        caches = self.trunk.empty_caches(len(seen), self.places + self.length, self.width)
        return self.trunk(self._picture(seen), self._mask()[:, :, : self.places], None, caches, 0)[1]

    def decode_step(self, caches, tokens, i):
        """Logits float32 [B, vocab_size] of token i, given int32 [B, length] of which those before i are written; and the
        new caches."""
        x = jax.lax.dynamic_slice_in_dim(self._words(tokens), i, 1, axis=1)
        mask = jax.lax.dynamic_slice_in_dim(self._mask(), self.places + i, 1, axis=2)
        x, caches = self.trunk(x, mask, None, caches, self.places + i)
        return self._logits(x[:, 0]), caches
