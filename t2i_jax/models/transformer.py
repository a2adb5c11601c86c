"""Transformer blocks, and a decoder that continues a caption with image tokens.

Blocks are pre-norm; as they come, with RMSNorm, without biases, with normalised queries and keys (arXiv 2302.05442, section 2).
Their fields make them those of published language models too. Everything that decoding needs is an argument: a key-value
cache goes in and comes out; no state hides in the module.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from t2i_jax.models.attention import Attention, head_sizes
from t2i_jax.models.code_vectors import CodeVectors
from t2i_jax.models.layers import Dense, Dropout, matmul, sine_positions, sine_positions_2d
from t2i_jax.text.condition import TextCondition

NORMS, MLPS = ("rms", "layer"), ("gelu_tanh", "gelu", "swiglu")


def make_norm(kind: str, epsilon: float, dtype, name: str) -> nn.Module:
    """RMSNorm ("rms") or layer norm with a bias ("layer"). ValueError for another kind."""
    if kind not in NORMS:
        raise ValueError(f"a block's norm is {kind!r}: it can be {' or '.join(NORMS)}")
    if kind == "rms":
        return nn.RMSNorm(epsilon, dtype=dtype, name=name)
    return nn.LayerNorm(epsilon, dtype=dtype, use_fast_variance=False, name=name)


class Block(nn.Module):
    """Attention and a network of one hidden layer, each on a normalised residual branch. Gives (x, cache).

    x [B, S, width]; mask, cache and position as in `Attention`; keys [B] for dropout.
    norm: "rms" or "layer".   mlp: "gelu_tanh", "gelu" or "swiglu" (arXiv 2002.05202, eq. 6), of `hidden` units (0: 4 x width).
    bias: of every linear layer.   qk_norm, rope, kv_heads, head_dim: of `Attention`.
    """

    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    norm: str = "rms"
    epsilon: float = 1e-6
    mlp: str = "gelu_tanh"
    hidden: int = 0
    bias: bool = False
    qk_norm: bool = True
    rope: float = 0.0
    kv_heads: int = 0
    head_dim: int = 0

    @nn.compact
    def __call__(self, x, mask, keys=None, cache=None, position=None):
        if self.mlp not in MLPS:
            raise ValueError(f"a block's mlp is {self.mlp!r}: it can be {', '.join(MLPS)}")

        def dense(features, name):
            return Dense(features, use_bias=self.bias, dtype=self.dtype, name=name)

        width = x.shape[-1]
        hidden = self.hidden or 4 * width
        y = make_norm(self.norm, self.epsilon, self.dtype, "attention_norm")(x)
        sizes = (self.rope, self.kv_heads, self.head_dim)
        attention = Attention(self.heads, self.qk_norm, self.bias, self.dtype, *sizes, name="attention")
        y, cache = attention(y, mask=mask, cache=cache, position=position)
        x = x + Dropout(self.dropout, name="attention_dropout")(y, keys)
        y = make_norm(self.norm, self.epsilon, self.dtype, "mlp_norm")(x)
        if self.mlp == "swiglu":
            y = nn.silu(dense(hidden, "mlp_gate")(y)) * dense(hidden, "mlp_in")(y)
        else:
            y = nn.gelu(dense(hidden, "mlp_in")(y), approximate=self.mlp == "gelu_tanh")
        y = dense(width, "mlp_out")(y)
        return x + Dropout(self.dropout, name="mlp_dropout")(y, keys), cache


# What `Transformer.block` can say; the rest of a block are the transformer's own fields, and Flax's.
BLOCK = tuple(
    field.name for field in dataclasses.fields(Block) if field.name not in ("heads", "dropout", "dtype", "parent", "name")
)


class Transformer(nn.Module):
    """`depth` blocks and a last norm over x [B, S, width]; `caches` is a list, one a block. Gives (x, caches).

    block: fields of `Block` other than the defaults, such as {"mlp": "swiglu", "rope": 10000.0, "kv_heads": 2}.
    ValueError for one that is not of BLOCK.
    """

    depth: int
    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False
    block: Mapping = FrozenDict()

    @nn.compact
    def __call__(self, x, mask, keys=None, caches=None, position=None):
        if unknown := sorted(set(self.block) - set(BLOCK)):
            raise ValueError(f"model.block.{unknown[0]} is unknown: a block has {', '.join(BLOCK)}")
        block = nn.remat(Block) if self.remat else Block
        new_caches = []
        # Unrolled: a scan over layers was a fifth slower in the backward pass on CPU.
        for i in range(self.depth):
            cache = None if caches is None else caches[i]
            layer = block(self.heads, self.dropout, self.dtype, **self.block, name=f"block_{i}")
            x, cache = layer(x, mask, keys, cache, position)
            new_caches.append(cache)
        kind, epsilon = (self.block.get(name, getattr(Block, name)) for name in ("norm", "epsilon"))
        return make_norm(kind, epsilon, self.dtype, "norm")(x), new_caches

    def empty_caches(self, batch: int, length: int, width: int) -> list:
        """Caches for `batch` rows of up to `length` places, one a block."""
        kv_heads, head_dim = head_sizes(width, self.heads, *(self.block.get(name, 0) for name in ("kv_heads", "head_dim")))
        shape = (batch, length, kv_heads, head_dim)
        return [{"k": jnp.zeros(shape, self.dtype), "v": jnp.zeros(shape, self.dtype)} for _ in range(self.depth)]


def window_table(grid: tuple[int, int], reach: int) -> np.ndarray:
    """Indices int32 [N, (2 reach + 1)^2] of the square window around each place, in row order; N stands for the outside."""
    rows, columns = grid
    window = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, 1, -1)
    y, x = np.mgrid[:rows, :columns].reshape(2, -1, 1) + window
    inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    return np.where(inside, y * columns + x, rows * columns).astype(np.int32)


def neighbour_table(grid: tuple[int, int]) -> np.ndarray:
    """Indices int32 [N, 12] of those before each place in its window of reach 2: the two rows above and two to the left."""
    return window_table(grid, 2)[:, :12]


class PrefixDecoder(nn.Module):
    """A decoder over [caption | image tokens]: bidirectional over the caption, causal over the image.

    With `causal_text` it is a language model whose vocabulary is widened by the codes: the caption's vectors, those of
    text/language_model.py, go into the trunk as they are, and each sees only those before it.

    Two things make it learn in minutes (docs/recipes.md): a token's vectors are those of `CodeVectors`, and what goes in at a
    place is not the token before it alone but those of its `neighbour_table`, mixed by one linear layer: raster order puts the
    token above a whole row away.

    codes: size of the image vocabulary.   grid: (height, width) of the token grid, read in row order.
    block: of `Transformer`; with "rope", a caption gets no other positions.
    """

    codes: int
    grid: tuple[int, int]
    width: int = 128
    depth: int = 6
    heads: int = 4
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False
    block: Mapping = FrozenDict()
    causal_text: bool = False

    def setup(self):
        def dense(features, use_bias=False):
            return Dense(features, use_bias=use_bias, dtype=self.dtype)

        if not self.causal_text:
            self.text_in = dense(self.width)
        self.vectors = CodeVectors(self.codes, 1, self.width, self.dtype)  # one row more: the outside of the picture
        self.near = dense(self.width)
        self.trunk = Transformer(self.depth, self.heads, self.dropout, self.dtype, self.remat, self.block)

    @property
    def length(self) -> int:
        """How many tokens a picture has."""
        return self.grid[0] * self.grid[1]

    def _caption(self, text: TextCondition):
        """Inputs [B, L, width] of a caption."""
        limit, width = text.sequence.shape[1:]
        if not self.causal_text:
            x = self.text_in(text.sequence)
            return x if self.block.get("rope") else x + sine_positions(limit, self.width).astype(self.dtype)
        if width != self.width:
            raise ValueError(f"model.causal_text: the caption's vectors are of width {width}; they must be of {self.width}")
        return text.sequence.astype(self.dtype)

    def _tokens(self, embed, codes, neighbours, positions):
        """Inputs [B, n, width] of n places, from codes [B, N], their rows of `neighbour_table` and their positions."""
        outside = jnp.full((codes.shape[0], 1), self.codes, codes.dtype)
        # Cast after the look-up: its gradient is a sum over thousands of places, which bfloat16 would not hold.
        near = embed[jnp.concatenate([codes, outside], axis=1)[:, neighbours]].astype(self.dtype)
        return self.near(near.reshape(*near.shape[:2], -1)) + positions.astype(self.dtype)

    def __call__(self, text: TextCondition, codes, codebook, keys=None):
        """Teacher-forced logits float32 [B, N, codes] of image tokens `codes` int32 [B, N], each given those before it.

        codebook: float [codes, D], what each code stands for.
        """
        limit, (embed, head) = text.mask.shape[1], self.vectors(codebook)
        image = self._tokens(embed, codes, neighbour_table(self.grid), sine_positions_2d(*self.grid, self.width))
        x = jnp.concatenate([self._caption(text), image], axis=1)
        x, _ = self.trunk(x, prefix_mask(text.mask, self.length, self.causal_text), keys)
        return matmul(x[:, limit:], head).astype(jnp.float32)

    def prefill(self, text: TextCondition, codebook):
        """Run the caption once; gives what `decode_step` goes on from: (vectors, caches)."""
        batch, limit = text.mask.shape
        caches = self.trunk.empty_caches(batch, limit + self.length, self.width)
        mask = prefix_mask(text.mask, self.length, self.causal_text)[:, :, :limit]
        return self.vectors(codebook), self.trunk(self._caption(text), mask, None, caches, 0)[1]

    def decode_step(self, text_mask, carry, codes, i):
        """Logits float32 [B, codes] of token i, given int32 [B, N] of which those before i are drawn; and the new carry."""
        (embed, head), caches = carry
        batch, limit = text_mask.shape
        places = (neighbour_table(self.grid), sine_positions_2d(*self.grid, self.width))
        x = self._tokens(embed, codes, *(jax.lax.dynamic_slice_in_dim(jnp.asarray(rows), i, 1) for rows in places))
        image_mask = jnp.broadcast_to(jnp.arange(self.length) <= i, (batch, self.length))
        mask = jnp.concatenate([text_mask, image_mask], axis=1)[:, None, None, :]
        x, caches = self.trunk(x, mask, None, caches, limit + i)
        return matmul(x[:, 0], head).astype(jnp.float32), ((embed, head), caches)


def prefix_mask(text_mask, length: int, causal_text: bool = False):
    """Who may look at whom in [caption | image]: bool [B, 1, L + N, L + N], from text_mask [B, L] and N = length.

    Each place at those before it and at itself, and at all of the caption unless `causal_text`.
    """
    batch, limit = text_mask.shape
    seen = jnp.tril(jnp.ones((limit + length, limit + length), bool))
    if not causal_text:
        seen = seen.at[:, :limit].set(True)
    present = jnp.concatenate([text_mask, jnp.ones((batch, length), bool)], axis=1)
    return seen[None, None] & present[:, None, None, :]
