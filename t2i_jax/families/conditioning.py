"""What every family that is conditioned on text does alike: encode, drop, null, guidance."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from t2i_jax.core.family import Context, Frozen
from t2i_jax.core.fields import Field
from t2i_jax.core.random import derive_keys
from t2i_jax.core.text import TextCondition
from t2i_jax.diffusion.guidance import guided
from t2i_jax.families.config_fields import remat_of
from t2i_jax.text.encoder import make_encoder


class Conditioning(NamedTuple):
    """How a family is conditioned on text: the functions of the encoder that a config names.

    A text is a dict of arrays [B, ...], {"tokens", "mask", ...}, as in core/text.py. The null text
    is the empty caption.

    init: (rng, batch) -> (the encoder's parameters, the TextCondition of one example, for shapes).
    encode: (params, frozen, text, keys=None) -> TextCondition. params: the encoder's.
        keys: [B], for dropout in training.
    text_of: (batch or inputs) -> its text.
    training_text: (ctx, keys) -> the text of the batch. In training each caption is replaced by
        the null text with probability `config.caption_dropout`, after each of its tokens was left
        out with probability `config.word_dropout`. keys: [B]; only used in training.
    null: (frozen) -> the null text, without a batch axis.
    with_null: (text, frozen) -> the text of 2 B examples: `text`, then B times the null text. The
        network's output for it is what `guide` takes.
    of_inputs: (inputs, frozen, count) -> the text of an ability's inputs, or `count` null texts
        where the inputs have no "text".
    pretrained: `Family.pretrained` where every player has the encoder's parameters as "text".
    """

    init: Callable[..., tuple[dict, TextCondition]]
    encode: Callable[..., TextCondition]
    text_of: Callable[[Mapping], Mapping]
    training_text: Callable[[Context, Key[Array, "B"] | None], Mapping]
    null: Callable[[Frozen], Mapping]
    with_null: Callable[[Mapping, Frozen], Mapping]
    of_inputs: Callable[[Mapping, Frozen, int], Mapping]
    pretrained: Callable[[dict], dict]


def make_conditioning(config) -> Conditioning:
    """Return the conditioning on text that `config.text` and `config.caption_dropout` describe.

    Raises ValueError, naming the nearest, for an unknown `config.text.encoder`.
    """
    name, encoder = config.text.encoder, make_encoder(config.text)

    def init(rng, batch):
        return encoder.init(rng, text_of(batch)["tokens"].shape[1])

    def encode(params, frozen, text, keys=None):
        if remat_of(config) == "none":
            return encoder.apply(params, frozen.get("text"), text, keys)
        # As a whole: its backward pass is the last one, when nothing of the network is kept.
        return jax.checkpoint(encoder.apply)(params, frozen.get("text"), text, keys)

    def text_of(batch):
        return batch["text"][name]

    def training_text(ctx, keys):
        text = text_of(ctx.batch)
        if not ctx.train:
            return text
        text = drop_words(text, keys, config.get("word_dropout", 0.0))
        return drop_captions(text, null(ctx.frozen), keys, config.caption_dropout)

    def null(frozen):
        return frozen["null_text"][name]

    def with_null(text, frozen):
        return join(text, null_like(text, null(frozen)))

    def of_inputs(inputs, frozen, count):
        if "text" in inputs:
            return text_of(inputs)
        return {
            field: jnp.broadcast_to(value, (count, *jnp.shape(value)))
            for field, value in null(frozen).items()
        }

    def pretrained(params):
        return {
            player: {**own, "text": encoder.pretrained(own["text"])}
            for player, own in params.items()
        }

    return Conditioning(
        init, encode, text_of, training_text, null, with_null, of_inputs, pretrained
    )


def drop_captions(text: Mapping, null: Mapping, keys: Key[Array, "B"], rate: float) -> Mapping:
    """Replace each caption by the null text with probability `rate` (arXiv 2207.12598, alg. 1).

    text: {name: [B, ...]}.
    null: {name: [...]}, with at least the names of `text`.
    """
    if rate == 0.0:
        return text
    drop = jax.vmap(lambda key: jax.random.bernoulli(key, rate))(keys)
    return {
        name: jnp.where(drop.reshape(-1, *[1] * (x.ndim - 1)), null[name], x)
        for name, x in text.items()
    }


def drop_words(text: Mapping, keys: Key[Array, "B"], rate: float) -> Mapping:
    """Leave out each token with probability `rate`; never all tokens of a caption.

    The network then learns what each word says without the others, so that a caption of which it
    knows only some words is no surprise.

    The remaining tokens move to the front: encoders and attention kernels need the padding at the
    end.
    text: {"mask": bool [B, L], name: [B, L, ...]}.
    """
    if rate == 0.0:
        return text
    own_keys, mask = derive_keys(keys, 1), jnp.asarray(text["mask"])
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, mask.shape[1:]))(own_keys)
    kept = mask & keep
    kept = jnp.where(kept.any(-1, keepdims=True), kept, mask)
    order = jnp.argsort(~kept, axis=1, stable=True)

    def reordered(x):
        return jnp.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), axis=1)

    return {name: reordered(jnp.asarray(x)) for name, x in {**text, "mask": kept}.items()}


def null_like(text: Mapping, null: Mapping) -> Mapping:
    """Return the null text for each text of `text`, {name: [B, ...]}, of the names in both."""
    return {
        name: jnp.broadcast_to(null[name], (len(x), *jnp.shape(null[name])))
        for name, x in text.items()
        if name in null
    }


def join(text: Mapping, other: Mapping) -> Mapping:
    """Return B texts, then B others: {name: [2 B, ...]}.

    Prompts in chunks (text/prompts.py) may have different lengths: both are repeated until they
    are equally long. Where only one has weights, those of the other are 1.
    """
    lengths = [jnp.shape(each["mask"])[1] for each in (text, other)]

    def filled(each: Mapping, length: int) -> Mapping:
        if "weight" in {*text, *other}:
            each = {"weight": jnp.ones(jnp.shape(each["mask"])), **each}
        repeats = math.lcm(*lengths) // length
        if repeats == 1:
            return each
        return {name: jnp.concatenate([x] * repeats, axis=1) for name, x in each.items()}

    one, two = (filled(*pair) for pair in zip((text, other), lengths, strict=True))
    return {name: jnp.concatenate([one[name], two[name]]) for name in one if name in two}


def guide(predictions: Float[Array, "twice_B *rest"], scale) -> Float[Array, "B *rest"]:
    """Return the guided predictions of a text and null texts.

    predictions: for the texts that `Conditioning.with_null` gives, [2 B, ...].
    scale: of guidance; see `diffusion.guidance.guided`.
    """
    cond, uncond = jnp.split(predictions, 2)
    return guided(cond, uncond, scale)


def guidance_field(default: float) -> Field:
    """Return the config field of the scale of guidance."""
    meaning = "scale of classifier-free guidance: 1 is none, more follows captions more closely"
    return Field(default, meaning, -1000.0, 1000.0)
