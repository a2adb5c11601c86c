"""The encoder of T5, version 1.1, whose vectors Stable Diffusion 3 and FLUX.1 attend to.

Source: arXiv 1910.10683; section 2.1 for the relative positions. Version 1.1 has a gated GELU
(arXiv 2002.05202) in place of ReLU.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from t2i_jax.core.types import AnyArray
from t2i_jax.models.attention import attend
from t2i_jax.models.layers import Dense

VARIANTS = {
    "v1.1-small": dict(width=512, depth=8, heads=6, mlp=1024),
    "v1.1-base": dict(width=768, depth=12, heads=12, mlp=2048),
    "v1.1-large": dict(width=1024, depth=24, heads=16, mlp=2816),
    "v1.1-XL": dict(width=2048, depth=24, heads=32, mlp=5120),
    "v1.1-XXL": dict(width=4096, depth=24, heads=64, mlp=10240),
}


class T5Encoder(nn.Module):
    """A pre-norm transformer over tokens, without biases, with relative positions.

    width: channels of a token.
    depth: number of blocks.
    heads: attention heads per block.
    mlp: hidden units of a block.
    head_dim: channels per head.
    vocab_size: number of tokens.
    buckets: number of groups of distances (see `distance_buckets`).
    max_distance: all distances from here on share one group.
    dtype: of the computation; parameters, norms and softmax are float32.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    head_dim: int = 64
    vocab_size: int = 32128
    buckets: int = 32
    max_distance: int = 128
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Int[AnyArray, "B L"], mask: Bool[AnyArray, "B L"] | None = None
    ) -> Float[Array, "B L width"]:
        """Return the normalised output of the last block.

        mask: True where there is a token; None to attend to padding too, as Stable Diffusion 3 and
            FLUX.1 do.
        """
        init = nn.initializers.normal(1.0)
        x = nn.Embed(
            self.vocab_size, self.width, dtype=self.dtype, embedding_init=init, name="embed"
        )(tokens)
        groups = distance_buckets(tokens.shape[1], self.buckets, self.max_distance)
        biases = self.param(
            "relative_bias", nn.initializers.normal(self.width**-0.5), (self.buckets, self.heads)
        )
        bias = biases[groups].transpose(2, 0, 1)[None]
        for i in range(self.depth):
            block = Block(self.heads, self.head_dim, self.mlp, self.dtype, name=f"block_{i}")
            x = block(x, mask, bias)
        return nn.RMSNorm(dtype=self.dtype, name="norm_out")(x)


class Block(nn.Module):
    """Attention and a gated network, each on a normalised residual branch.

    The fields are those of T5Encoder.
    """

    heads: int
    head_dim: int
    mlp: int
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L width"],
        mask: Bool[AnyArray, "B L"] | None,
        bias: Float[Array, "1 heads L L"],
    ) -> Float[Array, "B L width"]:
        dense = functools.partial(Dense, use_bias=False, dtype=self.dtype)
        norm = functools.partial(nn.RMSNorm, dtype=self.dtype)
        width, inner = x.shape[-1], self.heads * self.head_dim

        y = norm(name="attention_norm")(x)
        q, k, v = (
            dense(inner, name=name)(y).reshape(*y.shape[:2], self.heads, self.head_dim)
            for name in ("query", "key", "value")
        )
        # T5 does not divide the logits by sqrt(head_dim), as `attend` does.
        y = attend(q * math.sqrt(self.head_dim), k, v, mask, bias)
        x = x + dense(width, name="out")(y.reshape(*x.shape[:2], inner))

        y = norm(name="mlp_norm")(x)
        y = nn.gelu(dense(self.mlp, name="mlp_gate")(y)) * dense(self.mlp, name="mlp_in")(y)
        return x + dense(width, name="mlp_out")(y)


def distance_buckets(
    length: int, buckets: int, max_distance: int
) -> Int[np.ndarray, "{length} {length}"]:
    """Return the group of the distance from each query (row) to each key (column).

    Half of the groups are for keys before or at the query, half for keys after it. In each half,
    every distance below buckets / 4 has a group of its own; longer ones share groups whose limits
    grow geometrically up to `max_distance`; the last group has all that is farther.
    """
    half = buckets // 2
    exact = half // 2
    offset = np.arange(length)[None, :] - np.arange(length)[:, None]
    distance = np.abs(offset)
    # In float32, as the original: a limit that is a whole number falls on the same side.
    ratio = np.log(np.maximum(distance, exact).astype(np.float32) / np.float32(exact))
    steps = ratio / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)
    far = np.minimum(exact + steps.astype(np.int32), half - 1)
    return (offset > 0) * half + np.where(distance < exact, distance, far)
