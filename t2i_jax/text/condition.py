"""Text conditioning: one small structure for every family, and what gives it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from t2i_jax.by_name import make_of
from t2i_jax.text import tokenizer as tokenizers


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


class TextEncoder(NamedTuple):
    """A text encoder: plain functions. To add one, add a file t2i_jax/text/NAME.py with `make(config) -> TextEncoder`.

    A text is {"tokens" int32 [B, L], "mask" bool [B, L]} and whatever `precompute` adds, each [B, ...].

    init: (rng, length) -> (parameters to be trained, an example TextCondition of one caption of `length` tokens).
    apply: (params, frozen, text, keys=None) -> TextCondition; `frozen` is the tree of `make_frozen`, keys [B] are for dropout.
    make_tokenizer: (captions) -> a tokenizer for `text.tokenizer.encode`; `captions` are those of the training split.
    package: where published weights come from; "" if there are none.
    make_frozen: () -> nested dict of arrays that are used and never trained. Published ones: found again by name and hash.
    pretrained: (params) -> the same with published weights in place; for the start of a run, outside jit.
    precompute: (text) -> text with what need not be computed anew at every step, as arrays or whatever takes indices.
    """

    init: Callable
    apply: Callable
    make_tokenizer: Callable
    package: str = ""
    make_frozen: Callable = dict
    pretrained: Callable = lambda params: params
    precompute: Callable = lambda text: text


def make_encoder(config) -> TextEncoder:
    """The text encoder that `config.encoder` names; `config` is `config.text`, of which each takes its own fields."""
    return make_of("text", config.encoder)(config)


def trained(network: Callable, config) -> TextEncoder:
    """The encoder of a network that is trained with the model, on captions as `tokenizer.train` cuts them.

    network: a flax module class with a field `vocab_size`, called with (tokens, mask, keys) -> TextCondition; it is made with
    those of its fields that `config` has.
    """
    names = {field.name for field in dataclasses.fields(network)}
    module = network(**{name: value for name, value in config.items() if name in names})

    def init(rng, length):
        tokens, mask = jnp.zeros((1, length), jnp.int32), jnp.ones((1, length), bool)
        condition, variables = module.init_with_output(rng, tokens, mask)
        return variables["params"], condition

    def apply(params, frozen, text, keys=None):
        return module.apply({"params": params}, text["tokens"], text["mask"], keys)

    return TextEncoder(init, apply, lambda captions: tokenizers.train(captions, module.vocab_size))


def pretrained_texts(encoder: TextEncoder) -> Callable:
    """`Family.pretrained` of a family whose players each have the encoder's parameters as "text"."""
    return lambda params: {player: {**own, "text": encoder.pretrained(own["text"])} for player, own in params.items()}


def masked_mean(x, mask):
    """The mean [B, D] of the vectors x [B, L, D] where mask [B, L] is True."""
    weight = mask[..., None].astype(x.dtype)
    return (x * weight).sum(1) / jnp.maximum(weight.sum(1), 1)


def drop_captions(text: Mapping, null: Mapping, keys, rate: float) -> Mapping:
    """Replace each caption by the empty one with probability `rate` (arXiv 2207.12598, algorithm 1).

    text: {name: [B, ...]}; null: the empty caption, {name: [...]} with at least those names; keys: [B].
    """
    if rate == 0.0:
        return text
    drop = jax.vmap(lambda key: jax.random.bernoulli(key, rate))(keys)
    return {name: jnp.where(drop.reshape(-1, *[1] * (x.ndim - 1)), null[name], x) for name, x in text.items()}


def null_like(text: Mapping, null: Mapping) -> Mapping:
    """The empty caption repeated to the shape of `text`."""
    return {name: jnp.broadcast_to(null[name], x.shape) for name, x in text.items()}


def text_or_null(inputs: Mapping, frozen: Mapping, name: str, count: int) -> Mapping:
    """The text that the encoder `name` is given in `inputs`, or `count` empty captions where there is none."""
    if "text" in inputs:
        return inputs["text"][name]
    return {field: jnp.broadcast_to(value, (count, *jnp.shape(value))) for field, value in frozen["null_text"][name].items()}
