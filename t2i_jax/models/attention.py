"""Attention, as all transformers of the project use it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from t2i_jax.core.types import AnyArray
from t2i_jax.models.fused_attention import Mask, find_kernel
from t2i_jax.models.layers import Dense

# A caller that asks flax for this collection gets the `attention_weights` of every `Attention`.
INTERMEDIATES, WEIGHTS = "intermediates", "weights"


def attend(
    q: Float[AnyArray, "B Q heads D"],
    k: Float[AnyArray, "B K kv_heads D"],
    v: Float[AnyArray, "B K kv_heads D"],
    mask: Mask | None = None,
    bias: Float[AnyArray, "#B heads Q K"] | None = None,
) -> Float[Array, "B Q heads D"]:
    """Return the attention of queries q over keys k and values v; the softmax is in float32.

    Grouped queries (arXiv 2305.13245): each head of k and v serves heads / kv_heads neighbouring
    heads of q.
    mask: True where a query may use a key: one row per example, with the keys that may be used in
        front, or one row per query. The output of a query that may use none is zero.
    bias: added to the logits. Raises ValueError if heads of q share their keys.

    The kernels of models/fused_attention.py compute it where they apply.
    """
    if bias is None and (kernel := find_kernel(q, k, mask)):
        return kernel(q, k, v, mask)
    groups = q.shape[2] // k.shape[2]
    if bias is not None and groups > 1:
        raise ValueError(f"a bias needs keys for each head: {q.shape[2]} heads, {k.shape[2]} of k")
    if groups > 1:  # heads that share their keys become additional queries of one head
        batch, queries, heads, width = q.shape
        q = (
            q.reshape(batch, queries, -1, groups, width)
            .swapaxes(2, 3)
            .reshape(batch, queries * groups, -1, width)
        )
        if mask is not None and mask.ndim == 4 and mask.shape[2] > 1:
            mask = jnp.repeat(mask, groups, axis=2)
        y = attend(q, k, v, mask).reshape(batch, queries, groups, -1, width)
        return y.swapaxes(2, 3).reshape(batch, queries, heads, width)
    q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
    logits = jnp.einsum(
        "bhqd,bhkd->bhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32
    )
    logits = logits if bias is None else logits + bias
    allowed = True if mask is None else mask[:, None, None, :] if mask.ndim == 2 else mask
    logits = jnp.where(allowed, logits, -1e30)
    weights = jnp.where(
        allowed, jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))), 0.0
    )
    # Divide D numbers per query instead of K. On CPU the layer alone then took 0.75 of the time; a
    # whole training step took the same.
    total = jnp.maximum(weights.sum(-1, keepdims=True), 0.5)  # at least 1 where a key is allowed
    y = (
        jnp.einsum(
            "bhqk,bhkd->bhqd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
        )
        / total
    )
    return y.astype(v.dtype).swapaxes(1, 2)


def attention_weights(
    q: Float[AnyArray, "B Q heads D"],
    k: Float[AnyArray, "B K kv_heads D"],
    mask: Mask | None = None,
) -> Float[Array, "B Q K"]:
    """Return how much each query attends to each key: the mean over the heads.

    The weights of a query sum to 1, or to 0 if it may use no key. Arguments: see `attend`.
    """
    k = jnp.repeat(k, q.shape[2] // k.shape[2], axis=2)
    logits = jnp.einsum(
        "bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32
    )
    allowed = True if mask is None else mask[:, None, None, :] if mask.ndim == 2 else mask
    weights = jax.nn.softmax(jnp.where(allowed, logits, -1e30))
    return jnp.where(allowed, weights, 0.0).mean(1)


def rotate(
    x: Float[Array, "B S heads D"], position: int | Int[Array, ""], theta: float
) -> Float[Array, "B S heads D"]:
    """Encode positions by rotation (rotary positions, arXiv 2104.09864, equation 34).

    The product of a rotated query and a rotated key depends on their distance alone. Channels i and
    i + D/2 are rotated together, by theta^(-2i/D) radians per position. This is Llama's layout; the
    paper pairs neighbouring channels.
    position: that of the first element of x.
    """
    half = x.shape[-1] // 2
    angles = (position + jnp.arange(x.shape[1]))[:, None] * (
        theta ** (-np.arange(half) / half)
    ).astype(np.float32)
    cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def head_sizes(width: int, heads: int, kv_heads: int = 0, head_dim: int = 0) -> tuple[int, int]:
    """Return (heads of keys and values, channels per head).

    kv_heads: 0 stands for `heads`.
    head_dim: 0 stands for width / heads.
    Raises ValueError if `heads` is not a multiple of `kv_heads`, or `width` not one of `heads`.
    """
    if not head_dim and width % heads:
        raise ValueError(f"an attention width of {width} is not a multiple of {heads} heads")
    kv_heads = kv_heads or heads
    if heads % kv_heads:
        raise ValueError(
            f"{heads} heads cannot share the keys of {kv_heads}: kv_heads must divide heads"
        )
    return kv_heads, head_dim or width // heads


class Attention(nn.Module):
    """Multi-head attention of x over `context`, or over x itself.

    heads: number of heads of the queries.
    qk_norm: apply RMS norm to queries and keys, with one learned scale per channel of a head
        (arXiv 2302.05442, section 2).
    use_bias: whether the linear layers have a bias.
    input_bias: False leaves out that of queries, keys and values; the output keeps its own.
    dtype: of the computation; parameters and the softmax are float32.
    rope: theta of the rotary positions (see `rotate`), or 0 for none.
    kv_heads: heads of keys and values, or 0 for as many as `heads` (see `attend`).
    head_dim: channels per head, or 0 for width / heads.
    """

    heads: int
    qk_norm: bool = True
    use_bias: bool = True
    dtype: Any = jnp.float32
    rope: float = 0.0
    kv_heads: int = 0
    head_dim: int = 0
    input_bias: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[AnyArray, "B Q width"],
        context: Float[AnyArray, "B K context_width"] | None = None,
        mask: Bool[AnyArray, "..."] | None = None,
        cache: dict[str, Float[Array, "B kv_heads T head_dim"]] | None = None,
        position: int | Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B Q width"], dict[str, Float[Array, "B kv_heads T head_dim"]] | None]:
        """Return (the output, the updated cache or None).

        context: what keys and values are computed from; None for x.
        mask: see `attend`.
        cache: {"k", "v"}. The new keys and values are written at `position`, and the queries attend
            to the whole cache.
        position: that of the first element of x; None for 0.
        """
        context = x if context is None else context
        width, position = x.shape[-1], 0 if position is None else position
        kv_heads, head_dim = head_sizes(width, self.heads, self.kv_heads, self.head_dim)
        if self.rope and (self.rope <= 1 or head_dim % 2):
            raise ValueError(
                f"rope is {self.rope} for heads of {head_dim} channels: it is 0 (none) or theta, "
                "more than 1 (10000.0 is usual), and turns an even number of channels"
            )

        # Three products instead of one: XLA on CPU copies the slices of a fused product.
        def project(name, x, heads):
            bias = self.use_bias and self.input_bias
            x = Dense(heads * head_dim, use_bias=bias, dtype=self.dtype, name=name)(x)
            return x.reshape(*x.shape[:2], heads, head_dim)

        q = project("query", x, self.heads)
        k, v = project("key", context, kv_heads), project("value", context, kv_heads)
        if self.qk_norm:
            q = nn.RMSNorm(dtype=self.dtype, name="query_norm")(q)
            k = nn.RMSNorm(dtype=self.dtype, name="key_norm")(k)
        if self.rope:
            q, k = rotate(q, position, self.rope), rotate(k, position, self.rope)
        if cache is not None:
            # Kept in the order of the products in `attend`: with places before heads, XLA on CPU
            # copies the whole cache at every step, a third of the time of drawing.
            k, v = (
                jax.lax.dynamic_update_slice(cache[name], new.swapaxes(1, 2), (0, 0, position, 0))
                for name, new in (("k", k), ("v", v))
            )
            cache = {"k": k, "v": v}
            k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
        y = attend(q, k, v, mask)
        if self.is_mutable_collection(INTERMEDIATES):
            self.sow(INTERMEDIATES, WEIGHTS, attention_weights(q, k, mask))
        y = y.reshape(*y.shape[:2], -1)
        return Dense(width, use_bias=self.use_bias, dtype=self.dtype, name="out")(y), cache


def layer_norm(x: Float[Array, "*shape"], epsilon: float = 1e-6) -> Float[Array, "*shape"]:
    """Return x normalised over the last axis in float32, without learned parameters."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + epsilon)
