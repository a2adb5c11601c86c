"""Attention, which all transformers here share."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.models.layers import Dense


def attend(q, k, v, mask=None):
    """Attention of q [B, Q, heads, D] over k and v [B, K, kv_heads, D], its softmax in float32. Gives [B, Q, heads, D].

    Grouped queries (arXiv 2305.13245): each head of k and v serves heads / kv_heads neighbouring heads of q.
    mask: bool, [B, K] or broadcastable to [B, 1, Q, K], True where a key may be seen. A query that may see none gets zeros.
    """
    groups = q.shape[2] // k.shape[2]
    if groups > 1:  # heads that share keys become so many more queries of one head
        batch, queries, heads, width = q.shape
        q = q.reshape(batch, queries, -1, groups, width).swapaxes(2, 3).reshape(batch, queries * groups, -1, width)
        if mask is not None and mask.ndim == 4 and mask.shape[2] > 1:
            mask = jnp.repeat(mask, groups, axis=2)
        y = attend(q, k, v, mask).reshape(batch, queries, groups, -1, width)
        return y.swapaxes(2, 3).reshape(batch, queries, heads, width)
    q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
    logits = jnp.einsum("bhqd,bhkd->bhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32)
    seen = True if mask is None else mask[:, None, None, :] if mask.ndim == 2 else mask
    logits = jnp.where(seen, logits, -1e30)
    weights = jnp.where(seen, jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))), 0.0)
    # Divide D numbers a query instead of K: on CPU that took 0.75 of the time in a layer alone (a whole step: the same).
    total = jnp.maximum(weights.sum(-1, keepdims=True), 0.5)  # at least 1 where anything is seen
    y = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32) / total
    return y.astype(v.dtype).swapaxes(1, 2)


def rotate(x, position, theta: float):
    """Rotary positions (arXiv 2104.09864, eq. 34) of x [B, S, heads, D], the first of which is at `position` (a number).

    So a product of a query and a key depends on how far apart they are, not on where. Channel i turns with channel i + D/2,
    by theta^(-2i/D) radians a place: Llama's layout; the paper's pairs neighbouring channels.
    """
    half = x.shape[-1] // 2
    angles = (position + jnp.arange(x.shape[1]))[:, None] * (theta ** (-np.arange(half) / half)).astype(np.float32)
    cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def head_sizes(width: int, heads: int, kv_heads: int = 0, head_dim: int = 0) -> tuple[int, int]:
    """(heads of keys and values, channels of a head), where 0 stands for `heads` and width / heads. ValueError if uneven."""
    if not head_dim and width % heads:
        raise ValueError(f"an attention width of {width} is not a multiple of {heads} heads")
    kv_heads = kv_heads or heads
    if heads % kv_heads:
        raise ValueError(f"{heads} heads cannot share the keys of {kv_heads}: kv_heads must divide heads")
    return kv_heads, head_dim or width // heads


class Attention(nn.Module):
    """Multi-head attention of x [B, Q, width] over `context` [B, K, D] (x itself if None); gives (y [B, Q, width], cache).

    mask: see `attend`. qk_norm: RMS norm of queries and keys, a scale a channel of a head (arXiv 2302.05442, section 2).
    rope: theta of `rotate`, 0 for none.   kv_heads, head_dim: see `attend` and `head_sizes`.
    cache: {"k", "v"}, each [B, T, kv_heads, D]: the new keys and values are written at `position`, and the queries look over
    the whole of it; None gives None.   position: of the first of x; None is 0.
    """

    heads: int
    qk_norm: bool = True
    use_bias: bool = True
    dtype: Any = jnp.float32
    rope: float = 0.0
    kv_heads: int = 0
    head_dim: int = 0

    @nn.compact
    def __call__(self, x, context=None, mask=None, cache=None, position=None):
        context = x if context is None else context
        width, position = x.shape[-1], 0 if position is None else position
        kv_heads, head_dim = head_sizes(width, self.heads, self.kv_heads, self.head_dim)
        if self.rope and (self.rope <= 1 or head_dim % 2):
            raise ValueError(
                f"rope is {self.rope} for heads of {head_dim} channels: it is 0 (none) or theta, more than 1 (10000.0 is"
                " usual), and turns an even number of channels"
            )

        def project(name, x, heads):  # three products, not one: XLA on CPU copies the slices of a fused one
            x = Dense(heads * head_dim, use_bias=self.use_bias, dtype=self.dtype, name=name)(x)
            return x.reshape(*x.shape[:2], heads, head_dim)

        q = project("query", x, self.heads)
        k, v = project("key", context, kv_heads), project("value", context, kv_heads)
        if self.qk_norm:
            q = nn.RMSNorm(dtype=self.dtype, name="query_norm")(q)
            k = nn.RMSNorm(dtype=self.dtype, name="key_norm")(k)
        if self.rope:
            q, k = rotate(q, position, self.rope), rotate(k, position, self.rope)
        if cache is not None:
            k = jax.lax.dynamic_update_slice(cache["k"], k, (0, position, 0, 0))
            v = jax.lax.dynamic_update_slice(cache["v"], v, (0, position, 0, 0))
            cache = {"k": k, "v": v}
        y = attend(q, k, v, mask)
        y = y.reshape(*y.shape[:2], -1)
        return Dense(width, use_bias=self.use_bias, dtype=self.dtype, name="out")(y), cache


def layer_norm(x, epsilon=1e-6):
    """Layer norm over the last axis without parameters, computed and given in float32."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + epsilon)
