"""BERT, a post-norm transformer over tokens with learned positions (arXiv 1810.04805)."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from t2i_jax.models.attention import Attention
from t2i_jax.models.layers import Dense

VARIANTS = {
    "MiniLM-L6": dict(vocab_size=30522, width=384, depth=6, heads=12),  # arXiv 2002.10957
    "base": dict(vocab_size=30522, width=768, depth=12, heads=12),  # arXiv 1810.04805, section 3
}

Norm = functools.partial(nn.LayerNorm, epsilon=1e-12, use_fast_variance=False)


class Layer(nn.Module):
    """Attention and a GELU network of 4 x width, each added and then normalised: x [B, L, width], mask bool [B, L]."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, mask):
        width = x.shape[-1]
        y, _ = Attention(self.heads, qk_norm=False, dtype=self.dtype, name="attention")(x, mask=mask)
        x = Norm(dtype=self.dtype, name="attention_norm")(x + y)
        y = nn.gelu(Dense(4 * width, dtype=self.dtype, name="mlp_in")(x), approximate=False)
        return Norm(dtype=self.dtype, name="mlp_norm")(x + Dense(width, dtype=self.dtype, name="mlp_out")(y))


class Bert(nn.Module):
    """Tokens int32 [B, L] and mask bool [B, L] -> vectors [B, L, width] of the last layer, without pooler or dropout.

    All tokens are of the first segment. Vectors where the mask is False mean nothing; the others do not depend on how much
    padding there is. Raises ValueError if L is more than `positions`.
    """

    vocab_size: int
    width: int
    depth: int
    heads: int
    positions: int = 512
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens, mask):
        length, init = tokens.shape[1], nn.initializers.normal(0.02)
        if length > self.positions:
            raise ValueError(f"{length} tokens a caption: this BERT has {self.positions} positions")
        words = self.param("words", init, (self.vocab_size, self.width))
        positions = self.param("positions", init, (self.positions, self.width))
        segments = self.param("segments", init, (2, self.width))
        x = Norm(dtype=self.dtype, name="norm")(words[tokens] + positions[:length] + segments[0])
        for i in range(self.depth):
            x = Layer(self.heads, self.dtype, name=f"layer_{i}")(x, mask)
        return x
