"""Attention, which all transformers here share."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from t2i_jax.models.layers import Dense


def attend(q, k, v, mask=None):
    """Attention of q [B, Q, heads, D] over k and v [B, K, heads, D], its softmax in float32. Gives [B, Q, heads, D].

    mask: bool, [B, K] or broadcastable to [B, heads, Q, K], True where a key may be seen. A query that may see none gets
    zeros.
    """
    q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
    logits = jnp.einsum("bhqd,bhkd->bhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32)
    seen = True if mask is None else mask[:, None, None, :] if mask.ndim == 2 else mask
    logits = jnp.where(seen, logits, -1e30)
    weights = jnp.where(seen, jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))), 0.0)
    # Divide D numbers a query instead of K: on CPU that took 0.75 of the time in a layer alone (a whole step: the same).
    total = jnp.maximum(weights.sum(-1, keepdims=True), 0.5)  # at least 1 where anything is seen
    y = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32) / total
    return y.astype(v.dtype).swapaxes(1, 2)


class Attention(nn.Module):
    """Multi-head attention of x [B, Q, width] over `context` [B, K, D] (x itself if None); gives (y [B, Q, width], cache).

    mask: see `attend`. qk_norm: RMS norm of queries and keys, a scale a channel of a head (arXiv 2302.05442, section 2).
    cache: {"k", "v"}, each [B, T, heads, D]: the new keys and values are written at `position`, and the queries look over
    the whole of it; None gives None.
    """

    heads: int
    qk_norm: bool = True
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, context=None, mask=None, cache=None, position=None):
        context = x if context is None else context
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"an attention width of {width} is not a multiple of {self.heads} heads")

        def project(name, x):  # three products, not one: XLA on CPU copies the slices of a fused one
            x = Dense(width, use_bias=self.use_bias, dtype=self.dtype, name=name)(x)
            return x.reshape(*x.shape[:2], self.heads, width // self.heads)

        q, k, v = project("query", x), project("key", context), project("value", context)
        if self.qk_norm:
            q = nn.RMSNorm(dtype=self.dtype, name="query_norm")(q)
            k = nn.RMSNorm(dtype=self.dtype, name="key_norm")(k)
        if cache is not None:
            k = jax.lax.dynamic_update_slice(cache["k"], k, (0, position, 0, 0))
            v = jax.lax.dynamic_update_slice(cache["v"], v, (0, position, 0, 0))
            cache = {"k": k, "v": v}
        y = attend(q, k, v, mask).reshape(x.shape)
        return Dense(width, use_bias=self.use_bias, dtype=self.dtype, name="out")(y), cache


def layer_norm(x, epsilon=1e-6):
    """Layer norm over the last axis without parameters, computed and given in float32."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + epsilon)
