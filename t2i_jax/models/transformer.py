"""Transformer blocks, and a decoder that continues a caption with image tokens.

Blocks are pre-norm (RMSNorm) without biases, with normalised queries and keys (arXiv 2302.05442, section 2). Everything that
decoding needs is an argument: a key-value cache goes in and comes out; no state hides in the module.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.models.attention import Attention
from t2i_jax.models.layers import Dense, Dropout, matmul, sine_positions, sine_positions_2d
from t2i_jax.text.condition import TextCondition


class Block(nn.Module):
    """Attention and a GELU network, each on a normalised residual branch. Gives (x, cache).

    x [B, S, width]; mask and cache as in `Attention`; keys [B] for dropout."""

    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, mask, keys=None, cache=None, position=None):
        width = x.shape[-1]
        y = nn.RMSNorm(dtype=self.dtype, name="attention_norm")(x)
        attention = Attention(self.heads, use_bias=False, dtype=self.dtype, name="attention")
        y, cache = attention(y, mask=mask, cache=cache, position=position)
        x = x + Dropout(self.dropout, name="attention_dropout")(y, keys)
        y = nn.RMSNorm(dtype=self.dtype, name="mlp_norm")(x)
        y = nn.gelu(Dense(4 * width, use_bias=False, dtype=self.dtype, name="mlp_in")(y))
        y = Dense(width, use_bias=False, dtype=self.dtype, name="mlp_out")(y)
        return x + Dropout(self.dropout, name="mlp_dropout")(y, keys), cache


class Transformer(nn.Module):
    """`depth` blocks and a last norm over x [B, S, width]; `caches` is a list, one a block. Gives (x, caches)."""

    depth: int
    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x, mask, keys=None, caches=None, position=None):
        block = nn.remat(Block) if self.remat else Block
        new_caches = []
        # Unrolled: a scan over layers was a fifth slower in the backward pass on CPU.
        for i in range(self.depth):
            cache = None if caches is None else caches[i]
            layer = block(self.heads, self.dropout, self.dtype, name=f"block_{i}")
            x, cache = layer(x, mask, keys, cache, position)
            new_caches.append(cache)
        return nn.RMSNorm(dtype=self.dtype, name="norm")(x), new_caches


# (rows, columns) from a place to those before it in a window of five columns: two to the left and the two rows above.
NEIGHBOURS = tuple((y, x) for y in (-2, -1, 0) for x in (-2, -1, 0, 1, 2) if (y, x) < (0, 0))


def neighbour_table(grid: tuple[int, int]) -> np.ndarray:
    """Indices int32 [N, 12] of each place's NEIGHBOURS in row order; N stands for the outside."""
    rows, columns = grid
    y, x = np.mgrid[:rows, :columns].reshape(2, -1, 1) + np.array(NEIGHBOURS).T[:, None]
    inside = (y >= 0) & (x >= 0) & (x < columns)
    return np.where(inside, y * columns + x, rows * columns).astype(np.int32)


class PrefixDecoder(nn.Module):
    """A decoder over [caption | image tokens]: bidirectional over the caption, causal over the image.

    Two things make it learn in minutes (docs/recipes.md). A token's vectors, at the input and at the output, are a learned
    row plus a small network of its code's entry in the codebook: codes that look alike are alike from the start. And what
    goes in at a place is not the token before it alone but a window of NEIGHBOURS, mixed by one linear layer: raster order
    puts the token above a whole row away.

    codes: size of the image vocabulary.   grid: (height, width) of the token grid, read in row order.
    """

    codes: int
    grid: tuple[int, int]
    width: int = 128
    depth: int = 6
    heads: int = 4
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False

    def setup(self):
        if self.width % self.heads:
            raise ValueError(f"model.width {self.width} is not a multiple of model.heads {self.heads}")

        def dense(features, use_bias=False):
            return Dense(features, use_bias=use_bias, dtype=self.dtype)

        self.text_in = dense(self.width)
        self.look, self.look_in, self.look_out = dense(2 * self.width, True), dense(self.width), dense(self.width)
        # One row more than there are codes: the outside of the picture.
        self.embed = self.param("embed", nn.initializers.normal(0.5), (self.codes + 1, self.width))
        self.head = self.param("head", nn.initializers.zeros, (self.codes, self.width))
        self.near = dense(self.width)
        self.trunk = Transformer(self.depth, self.heads, self.dropout, self.dtype, self.remat)

    @property
    def length(self) -> int:
        """How many tokens a picture has."""
        return self.grid[0] * self.grid[1]

    def _vectors(self, codebook):
        """Input vectors [codes + 1, width] and output vectors [width, codes] of the codes, from codebook [codes, D]."""
        look = nn.gelu(self.look((codebook - codebook.mean(0)) / (codebook.std() + 1e-6)))
        embed = self.embed + jnp.pad(self.look_in(look), ((0, 1), (0, 0)))
        return embed, (self.head + self.look_out(look) * self.width**-0.5).T.astype(self.dtype)

    def _caption(self, text: TextCondition):
        return self.text_in(text.sequence) + sine_positions(text.sequence.shape[1], self.width).astype(self.dtype)

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
        limit, (embed, head) = text.mask.shape[1], self._vectors(codebook)
        image = self._tokens(embed, codes, neighbour_table(self.grid), sine_positions_2d(*self.grid, self.width))
        x = jnp.concatenate([self._caption(text), image], axis=1)
        x, _ = self.trunk(x, prefix_mask(text.mask, self.length), keys)
        return matmul(x[:, limit:], head).astype(jnp.float32)

    def prefill(self, text: TextCondition, codebook):
        """Run the caption once; gives what `decode_step` goes on from: (vectors, caches)."""
        batch, limit = text.mask.shape
        shape = (batch, limit + self.length, self.heads, self.width // self.heads)
        caches = [{"k": jnp.zeros(shape, self.dtype), "v": jnp.zeros(shape, self.dtype)} for _ in range(self.depth)]
        mask = jnp.pad(text.mask, ((0, 0), (0, self.length)))[:, None, None, :]
        return self._vectors(codebook), self.trunk(self._caption(text), mask, None, caches, 0)[1]

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


def prefix_mask(text_mask, length: int):
    """Who may look at whom in [caption | image]: bool [B, 1, L + N, L + N], from text_mask [B, L] and N = length."""
    batch, limit = text_mask.shape
    causal = jnp.tril(jnp.ones((limit + length, limit + length), bool)).at[:limit, limit:].set(False)
    causal = causal.at[:, :limit].set(True)
    present = jnp.concatenate([text_mask, jnp.ones((batch, length), bool)], axis=1)
    return causal[None, None] & present[:, None, None, :]
