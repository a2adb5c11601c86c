"""BERT, a post-norm transformer over tokens with learned positions (arXiv 1810.04805)."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from t2i_jax.core.types import AnyArray
from t2i_jax.models.attention import Attention
from t2i_jax.models.layers import Dense

VARIANTS = {
    "MiniLM-L6": dict(vocab_size=30522, width=384, depth=6, heads=12),  # arXiv 2002.10957
    "base": dict(vocab_size=30522, width=768, depth=12, heads=12),  # arXiv 1810.04805, section 3
}

Norm = functools.partial(nn.LayerNorm, epsilon=1e-12, use_fast_variance=False)


class Layer(nn.Module):
    """Attention and a GELU network of 4 x width hidden units, each added and then normalised."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L width"], mask: Bool[AnyArray, "B L"]
    ) -> Float[Array, "B L width"]:
        width = x.shape[-1]
        y, _ = Attention(self.heads, qk_norm=False, dtype=self.dtype, name="attention")(
            x, mask=mask
        )
        x = Norm(dtype=self.dtype, name="attention_norm")(x + y)
        y = nn.gelu(Dense(4 * width, dtype=self.dtype, name="mlp_in")(x), approximate=False)
        return Norm(dtype=self.dtype, name="mlp_norm")(
            x + Dense(width, dtype=self.dtype, name="mlp_out")(y)
        )


class Bert(nn.Module):
    """The encoder of BERT, without its pooler and without dropout.

    vocab_size: number of tokens.
    width: channels of a token.
    depth: number of layers.
    heads: attention heads per layer.
    positions: the longest caption, in tokens.
    dtype: of the computation; parameters are float32.
    """

    vocab_size: int
    width: int
    depth: int
    heads: int
    positions: int = 512
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Int[AnyArray, "B L"], mask: Bool[AnyArray, "B L"]
    ) -> Float[Array, "B L width"]:
        """Return the vectors of the last layer.

        All tokens belong to the first segment. Vectors where the mask is False mean nothing; the
        others do not depend on the amount of padding.
        Raises ValueError if L is larger than `positions`.
        """
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
