"""Losses of tokens: cross-entropy, and how often the likeliest token is the right one."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Num

from t2i_jax.core.types import AnyArray
from t2i_jax.models.code_parts import split_codes


def cross_entropy(
    logits: Float[AnyArray, "B N V"], tokens: Int[AnyArray, "B N"]
) -> tuple[Float[Array, "B N"], Bool[Array, "B N"]]:
    """Return the cross-entropy of each token in nats, and whether it is the likeliest token."""
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
    likeliest = jnp.take_along_axis(logits, tokens[..., None], -1)[..., 0] == logits.max(-1)
    return nats, likeliest


def part_cross_entropy(
    logits: Sequence[Float[AnyArray, "B N _"]],
    codes: Int[AnyArray, "B N"],
    parts: tuple[int, ...],
) -> tuple[Float[Array, "parts B N"], Bool[Array, "parts B N"]]:
    """Return `cross_entropy` of each part of codes.

    logits: of each part; of the second, given the true first.
    parts: how many values each part has; () for codes of one part.
    """
    pairs = zip(logits, split_codes(codes, parts), strict=True)
    nats, likeliest = zip(*(cross_entropy(*pair) for pair in pairs), strict=True)
    return jnp.stack(nats), jnp.stack(likeliest)


def mean_where(
    mask: Bool[AnyArray, "B N"], x: Num[AnyArray, "B N"] | Bool[AnyArray, "B N"]
) -> Float[Array, "B"]:
    """Return the mean of `x` over the places where `mask` is True, for each example."""
    return jnp.where(mask, x, 0).sum(-1) / mask.sum(-1)
