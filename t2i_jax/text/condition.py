"""Text conditioning: one small structure for every family."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from t2i_jax.by_name import make_of


class TextCondition(NamedTuple):
    """What a network is told of a caption.

    sequence: float [B, L, D], a vector a token.   pooled: float [B, D], a vector a caption.
    mask: bool [B, L], True where there is a token.   vector: float [B, K] or None (size, crop, guidance).
    The null condition is the encoding of the empty caption.
    """

    sequence: Any
    pooled: Any
    mask: Any
    vector: Any = None


def make_encoder(config):
    """The text encoder that `config.encoder` names, a linen module (tokens, mask, keys) -> TextCondition.

    `config` is `config.text`; the file t2i_jax/text/NAME.py has the fields it takes.
    """
    return make_of("text", config.encoder)(config)


def drop_captions(text: Mapping, null: Mapping, keys, rate: float) -> Mapping:
    """Replace each caption by the empty one with probability `rate` (arXiv 2207.12598, algorithm 1).

    text: {"tokens" [B, L], "mask" [B, L]}; null: the empty caption, {"tokens" [L], "mask" [L]}; keys: [B].
    """
    if rate == 0.0:
        return text
    drop = jax.vmap(lambda key: jax.random.bernoulli(key, rate))(keys)[:, None]
    return {name: jnp.where(drop, null[name], text[name]) for name in text}


def null_like(text: Mapping, null: Mapping) -> Mapping:
    """The empty caption repeated to the shape of `text`."""
    return {name: jnp.broadcast_to(null[name], text[name].shape) for name in text}
