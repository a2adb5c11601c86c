"""How the words of a caption reach the patches of a picture (docs/fusion.md compares the ways).

Here are the ways that need layers of their own. Joint attention, plain cross-attention and the
scaling of norms by the caption's vector are in models/dit.py.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from t2i_jax.models.attention import Attention, layer_norm
from t2i_jax.models.layers import Dense, Dropout

# {name: how tokens and cells attend to each other (models/word_attention.py)}; "" where no cell
# attends to a token itself.
TEXT_MODES = {"joint": "joint", "cross": "cross", "gated": "cross", "resampler": "", "film": ""}
RESAMPLER_DEPTH = 2


class GatedCrossAttention(nn.Module):
    """Cross-attention and a GELU network, each behind a gate that starts closed.

    y = x + tanh(a) attention(norm(x), words), and then y + tanh(b) mlp(norm(y)). The numbers a and
    b are learned and start at 0, so the layer starts as the identity. Source: Flamingo (arXiv
    2204.14198, section 2.2 and figure 4).

    heads: attention heads.
    hidden: hidden units of the network.
    dropout: probability of dropping a number of a branch in training.
    qk_norm: normalise queries and keys.
    dtype: of the computation.
    """

    heads: int
    hidden: int
    dropout: float = 0.0
    qk_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N width"],
        words: Float[Array, "B L D"],
        mask: Bool[Array, "B L"],
        keys: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B N width"]:
        """Return x after it attended to the words where `mask` is True.

        keys: for dropout; None for no dropout.
        """

        def add(x, branch, name):
            gate = jnp.tanh(self.param(f"{name}_gate", nn.initializers.zeros, ()))
            y = branch(layer_norm(x).astype(self.dtype))
            y = Dropout(self.dropout, name=f"{name}_dropout")(y, keys)
            return x + gate.astype(self.dtype) * y

        attention = Attention(self.heads, self.qk_norm, dtype=self.dtype, name="cross_attention")
        x = add(x, lambda y: attention(y, words, mask)[0], "attention")
        return add(x, lambda y: _mlp(y, self.hidden, self.dtype), "mlp")


class Resampler(nn.Module):
    """A fixed number of vectors that stand for any number of words.

    Learned queries attend to the words and to one another, then pass a GELU network; this is done
    RESAMPLER_DEPTH times. The order of the words counts only as far as their vectors tell it.
    Source: the Perceiver resampler of Flamingo (arXiv 2204.14198, section 2.1). The queries of
    BLIP-2's Q-Former (arXiv 2301.12597, section 3.1) attend to one another and to the input in
    separate layers instead.

    queries: number of vectors.
    heads, hidden, dropout, qk_norm, dtype: as for `GatedCrossAttention`.
    """

    queries: int
    heads: int
    hidden: int
    dropout: float = 0.0
    qk_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        words: Float[Array, "B L width"],
        mask: Bool[Array, "B L"],
        keys: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B queries width"]:
        """Return the vectors that stand for the words where `mask` is True.

        keys: for dropout; None for no dropout.
        """
        batch, _, width = words.shape
        start = self.param("start", nn.initializers.normal(0.5), (self.queries, width))
        x = jnp.broadcast_to(start.astype(self.dtype), (batch, self.queries, width))
        mask = jnp.concatenate([jnp.ones((batch, self.queries), bool), mask], axis=1)
        sizes = (self.heads, self.hidden, self.dropout, self.qk_norm, self.dtype)
        for i in range(RESAMPLER_DEPTH):
            x = _ResamplerLayer(*sizes, name=f"layer_{i}")(x, words, mask, keys)
        return layer_norm(x).astype(self.dtype)


class _ResamplerLayer(nn.Module):
    heads: int
    hidden: int
    dropout: float
    qk_norm: bool
    dtype: Any

    @nn.compact
    def __call__(self, x, words, mask, keys):
        """Return x; `mask` is that of x and then the words."""

        def add(x, y, name):
            return x + Dropout(self.dropout, name=f"{name}_dropout")(y, keys)

        both = layer_norm(jnp.concatenate([x, words], axis=1)).astype(self.dtype)
        attention = Attention(self.heads, self.qk_norm, dtype=self.dtype, name="attention")
        x = add(x, attention(both[:, : x.shape[1]], both, mask)[0], "attention")
        return add(x, _mlp(layer_norm(x).astype(self.dtype), self.hidden, self.dtype), "mlp")


def _mlp(x, hidden, dtype):
    """Apply a network with one hidden layer, whose layers become the calling module's own."""
    y = nn.gelu(Dense(hidden, dtype=dtype, name="mlp_in")(x))
    return Dense(x.shape[-1], dtype=dtype, name="mlp_out")(y)
