"""The joint transformer block (MMDiT) of Stable Diffusion 3 and FLUX.1.

Source: arXiv 2403.03206, section 4 and figure 2. Text and picture have weights of their own and
attend to both.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.text import TextCondition
from t2i_jax.core.types import AnyArray
from t2i_jax.models.attention import attend, layer_norm
from t2i_jax.models.layers import Dense, sine_time

TIME_CHANNELS = 256  # of the sine embedding of a time or of a guidance

# Cosines and sines of the angles of each token, float32 [S, D / 2]
Rotation = tuple[Float[AnyArray, "S half"], Float[AnyArray, "S half"]]


class JointBlock(nn.Module):
    """Attention of text and picture over both, then a GELU network for each.

    The condition scales and shifts each norm and gates each residual branch, from zero at the
    start (adaLN-zero, arXiv 2212.09748, section 3.2).

    heads: attention heads; they divide the width.
    qk_norm: apply RMS norm to queries and keys.
    last: the text is attended to a last time and not updated.
    dual: add a branch of attention of the picture over itself, as Stable Diffusion 3.5 medium does.
    dtype: of the computation; parameters, norms and softmax are float32.
    """

    heads: int
    qk_norm: bool
    last: bool
    dual: bool
    dtype: Any

    @nn.compact
    def __call__(
        self,
        picture: Float[Array, "B N width"],
        text: Float[Array, "B L width"],
        condition: Float[Array, "B width"],
        rotation: Rotation | None = None,
    ) -> tuple[Float[Array, "B N width"], Float[Array, "B L width"]]:
        """Return the updated (picture, text).

        condition: from `embed_condition`.
        rotation: of queries and keys, the text's first; S = L + N.
        """
        streams, width = {"text": text, "picture": picture}, picture.shape[-1]
        gates, projected = {}, []
        for name, x in streams.items():
            if self.last and name == "text":
                scale, shift = modulation(condition, 2, self.dtype, f"{name}_modulation")
            else:
                count = 9 if self.dual and name == "picture" else 6
                shift, scale, *gates[name] = modulation(
                    condition, count, self.dtype, f"{name}_modulation"
                )
            y = modulate(x, scale, shift, self.dtype)
            projected.append(project(y, self.heads, self.qk_norm, self.dtype, f"{name}_"))
        q, k, v = (jnp.concatenate(parts, axis=1) for parts in zip(*projected, strict=True))
        y = attend(rotate_pairs(q, rotation), rotate_pairs(k, rotation), v)
        y = y.reshape(*y.shape[:2], width)
        attended = {"text": y[:, : text.shape[1]], "picture": y[:, text.shape[1] :]}
        for name, (gate, shift, scale, mlp_gate, *dual) in gates.items():
            y = Dense(width, dtype=self.dtype, name=f"{name}_out")(attended[name])
            x = streams[name] + gate.astype(self.dtype) * y
            if dual:
                x = x + self._attend_to_itself(streams[name], *dual)
            y = modulate(x, scale, shift, self.dtype)
            y = nn.gelu(Dense(4 * width, dtype=self.dtype, name=f"{name}_mlp_in")(y))
            y = Dense(width, dtype=self.dtype, name=f"{name}_mlp_out")(y)
            streams[name] = x + mlp_gate.astype(self.dtype) * y
        return streams["picture"], streams["text"]

    def _attend_to_itself(self, picture, shift, scale, gate):
        y = modulate(picture, scale, shift, self.dtype)
        q, k, v = project(y, self.heads, self.qk_norm, self.dtype, "self_")
        y = attend(q, k, v).reshape(picture.shape)
        y = Dense(picture.shape[-1], dtype=self.dtype, name="self_out")(y)
        return gate.astype(self.dtype) * y


def embed_condition(
    t: Float[AnyArray, "B"], text: TextCondition, width: int, dtype: Any
) -> Float[Array, "B {width}"]:
    """Return one vector per example for its time in [0, 1], `text.pooled` and `text.vector`.

    `text.vector` is None or the guidance [B, 1], embedded as a time is. Call it in a module's
    `__call__`: its layers become layers of that module.
    """

    def embed(x, name):
        x = nn.silu(Dense(width, dtype=dtype, name=f"{name}_in")(x))
        return Dense(width, dtype=dtype, name=f"{name}_out")(x)

    condition = embed(sine_time(jnp.asarray(t), TIME_CHANNELS), "time")
    condition += embed(text.pooled, "pooled")
    if text.vector is not None:
        condition += embed(sine_time(text.vector[:, 0], TIME_CHANNELS), "guidance")
    return nn.silu(condition)


def modulation(
    condition: Float[Array, "B width"], count: int, dtype: Any, name: str
) -> list[Float[Array, "B 1 width"]]:
    """Return `count` linear functions of the condition, float32 and zero at the start.

    Call it in a module's `__call__`: its layer becomes a layer of that module.
    """
    width, zeros = condition.shape[-1], nn.initializers.zeros
    dense = Dense(count * width, kernel_init=zeros, dtype=dtype, name=name)
    return jnp.split(dense(condition).astype(jnp.float32)[:, None], count, axis=-1)


def modulate(
    x: Float[Array, "B S width"],
    scale: Float[Array, "B 1 width"],
    shift: Float[Array, "B 1 width"],
    dtype: Any,
) -> Float[Array, "B S width"]:
    """Return x normalised, scaled by 1 + scale and shifted."""
    return (layer_norm(x) * (1.0 + scale) + shift).astype(dtype)


def project(
    x: Float[Array, "B S width"], heads: int, qk_norm: bool, dtype: Any, prefix: str = ""
) -> tuple[Float[Array, "B S heads D"], Float[Array, "B S heads D"], Float[Array, "B S heads D"]]:
    """Return queries, keys and values, with D = width / heads.

    qk_norm: apply RMS norm to queries and keys, with one learned scale per channel of a head.
    prefix: of the names of the layers. Call it in a module's `__call__`: they become layers of
        that module.
    """
    q, k, v = (
        Dense(x.shape[-1], dtype=dtype, name=f"{prefix}{name}")(x).reshape(*x.shape[:2], heads, -1)
        for name in ("query", "key", "value")
    )
    if qk_norm:
        q = nn.RMSNorm(dtype=dtype, name=f"{prefix}query_norm")(q)
        k = nn.RMSNorm(dtype=dtype, name=f"{prefix}key_norm")(k)
    return q, k, v


def rotate_pairs(
    x: Float[Array, "B S heads D"], rotation: Rotation | None
) -> Float[Array, "B S heads D"]:
    """Encode positions by rotation of neighbouring channels (arXiv 2104.09864, equation 34).

    The first of all pairs come before the second in the result. Queries and keys are both in this
    order, so that their products are those of the published order. x itself if `rotation` is None.
    """
    if rotation is None:
        return x
    cos, sin = (part[:, None] for part in rotation)
    a, b = (x[..., i::2].astype(jnp.float32) for i in (0, 1))
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
