"""Transformer blocks.

They are pre-norm. By default they have RMSNorm, no biases, and normalised queries and keys (arXiv
2302.05442, section 2); other fields give the blocks of published language models. All that decoding
needs is an argument: a key-value cache goes in and comes out, and no module holds a state.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float, Int, Key

from t2i_jax.models.attention import Attention, head_sizes
from t2i_jax.models.layers import Dense, Dropout, with_neighbours
from t2i_jax.models.recompute import recomputed

NORMS, MLPS = ("rms", "layer"), ("gelu_tanh", "gelu", "swiglu")

# The keys and values of one block: {"k", "v"}.
Cache = dict[str, Float[Array, "B kv_heads T head_dim"]]


def make_norm(kind: str, epsilon: float, dtype, name: str) -> nn.Module:
    """Return RMSNorm ("rms") or layer norm with a bias ("layer"). Raises ValueError for others."""
    if kind not in NORMS:
        raise ValueError(f"a block's norm is {kind!r}: it can be {' or '.join(NORMS)}")
    if kind == "rms":
        return nn.RMSNorm(epsilon, dtype=dtype, name=name)
    return nn.LayerNorm(epsilon, dtype=dtype, use_fast_variance=False, name=name)


class Block(nn.Module):
    """Attention and a network with one hidden layer, each on a normalised residual branch.

    heads: attention heads; they divide the width.
    dropout: probability of dropping a number of a residual branch in training.
    dtype: of the computation; parameters are float32.
    norm: before each branch: "rms" (RMSNorm) or "layer" (layer norm with a bias).
    epsilon: added to the variance in a norm.
    mlp: the hidden layer: "gelu_tanh" (approximated), "gelu" or "swiglu" (arXiv 2002.05202,
        equation 6).
    hidden: hidden units; 0 for 4 times the width.
    bias: whether the linear layers have a bias.
    qk_norm: whether queries and keys are normalised.
    rope: theta of rotary positions, 10000.0 as a rule; 0 for none.
    kv_heads: heads of keys and values; 0 for as many as `heads`.
    head_dim: channels per head; 0 for width / heads.
    grid: (rows, columns), if the last places are cells of such a grid and the hidden layer sees
        some channels of the cells beside each (`with_neighbours`).
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
    grid: tuple[int, int] | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S width"],
        mask: Bool[Array, "..."] | None,
        keys: Key[Array, "B"] | None = None,
        cache: Cache | None = None,
        position: int | Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B S width"], Cache | None]:
        """Return (the output, the updated cache or None).

        mask, cache, position: see `Attention`.
        keys: for dropout; None for no dropout.
        """
        if self.mlp not in MLPS:
            raise ValueError(f"a block's mlp is {self.mlp!r}: it can be {', '.join(MLPS)}")

        def dense(features, name):
            return Dense(features, use_bias=self.bias, dtype=self.dtype, name=name)

        width = x.shape[-1]
        hidden = self.hidden or 4 * width
        y = make_norm(self.norm, self.epsilon, self.dtype, "attention_norm")(x)
        sizes = (self.rope, self.kv_heads, self.head_dim)
        attention = Attention(
            self.heads, self.qk_norm, self.bias, self.dtype, *sizes, name="attention"
        )
        y, cache = attention(y, mask=mask, cache=cache, position=position)
        x = x + Dropout(self.dropout, name="attention_dropout")(y, keys)
        y = make_norm(self.norm, self.epsilon, self.dtype, "mlp_norm")(x)
        if self.grid:
            others = y.shape[1] - self.grid[0] * self.grid[1]
            cells = with_neighbours(y[:, others:], self.grid)
            y = jnp.concatenate([y[:, :others], cells], axis=1)
        if self.mlp == "swiglu":
            y = nn.silu(dense(hidden, "mlp_gate")(y)) * dense(hidden, "mlp_in")(y)
        else:
            y = nn.gelu(dense(hidden, "mlp_in")(y), approximate=self.mlp == "gelu_tanh")
        y = dense(width, "mlp_out")(y)
        return x + Dropout(self.dropout, name="mlp_dropout")(y, keys), cache


# The fields of `Transformer.block`. The other fields of a block are the transformer's own.
BLOCK_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(Block)
    if field.name not in ("heads", "dropout", "dtype", "grid", "parent", "name")
)


class Transformer(nn.Module):
    """A stack of blocks and a last norm.

    depth: number of blocks.
    heads: attention heads per block; they divide the width.
    dropout: probability of dropping a number of a residual branch in training.
    dtype: of the computation; parameters are float32.
    remat: what the backward pass computes again (models/recompute.py).
    block: fields of `Block` that are not at their defaults, such as {"mlp": "swiglu", "rope":
        10000.0, "kv_heads": 2}.
    grid: see `Block`.
    """

    depth: int
    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: str = "none"
    block: Mapping = FrozenDict()
    grid: tuple[int, int] | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S width"],
        mask: Bool[Array, "..."] | None,
        keys: Key[Array, "B"] | None = None,
        caches: list | None = None,
        position: int | Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B S width"], list]:
        """Return (the output, the updated caches or Nones, one per block).

        mask, position: see `Attention`.
        keys: for dropout; None for no dropout.
        caches: those of `empty_caches`, or None.
        Raises ValueError for a field of `block` that is not one of BLOCK_FIELDS.
        """
        if unknown := sorted(set(self.block) - set(BLOCK_FIELDS)):
            known = ", ".join(BLOCK_FIELDS)
            raise ValueError(f"model.block.{unknown[0]} is unknown: a block has {known}")
        block = recomputed(Block, self.remat)
        new_caches = []
        # Unrolled: a scan over layers was a fifth slower in the backward pass on CPU.
        for i in range(self.depth):
            cache = None if caches is None else caches[i]
            sizes = (self.heads, self.dropout, self.dtype)
            layer = block(*sizes, **self.block, grid=self.grid, name=f"block_{i}")
            x, cache = layer(x, mask, keys, cache, position)
            new_caches.append(cache)
        kind, epsilon = (self.block.get(name, getattr(Block, name)) for name in ("norm", "epsilon"))
        return make_norm(kind, epsilon, self.dtype, "norm")(x), new_caches

    def empty_caches(self, batch: int, length: int, width: int) -> list[Cache]:
        """Return caches for `batch` rows of up to `length` places, one per block."""
        kv_heads, head_dim = head_sizes(
            width, self.heads, *(self.block.get(name, 0) for name in ("kv_heads", "head_dim"))
        )
        shape = (batch, kv_heads, length, head_dim)
        return [
            {"k": jnp.zeros(shape, self.dtype), "v": jnp.zeros(shape, self.dtype)}
            for _ in range(self.depth)
        ]


def window_table(grid: tuple[int, int], reach: int) -> Int[np.ndarray, "N window"]:
    """Return the places in the square window around each place of a grid.

    Places are numbered in row order; N = rows * columns stands for the outside of the grid. The
    window has (2 reach + 1)^2 places, in row order too.
    """
    rows, columns = grid
    window = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, 1, -1)
    y, x = np.mgrid[:rows, :columns].reshape(2, -1, 1) + window
    inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    return np.where(inside, y * columns + x, rows * columns).astype(np.int32)
