"""Captioning: a transformer that continues a picture with words (arXiv 1411.4555, 2108.10904).

The picture is given to it as the codes of a first stage (first_stage.py), or as a feature map of
EfficientNet-Lite0; `config.captioner` says which.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.families.captioning import (
    CAPTION_FIELDS,
    SOURCES,
    check_caption_settings,
    make_view,
    make_word_decoder,
    word_loss,
    write_captions,
)
from t2i_jax.families.config_fields import read_section, transformer_sections
from t2i_jax.families.first_stage import image_tokenizer_fields
from t2i_jax.models.word_decoder import WordDecoder

CAPTIONER_FIELDS = {
    "source": Field("codes", "what the network takes of a picture", choices=SOURCES),
    "map": Field(4, 'with "features": the map of EfficientNet-Lite0; 0 is the finest', 0),
    "smoothing": Field(0.0, "label smoothing in training (arXiv 1512.00567)", 0.0, 1.0),
}


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    return {
        **transformer_sections(WordDecoder),
        "captioner": CAPTIONER_FIELDS,
        "caption": CAPTION_FIELDS,
        **image_tokenizer_fields(config),
    }


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, data.resolution, first_stage and text.

    Raises ValueError for an unknown field or source, a feature map that does not exist, or a
    text.encoder other than "transformer", of which only the tokenizer is used.
    """
    del axis_name  # nothing here compares examples
    settings = read_section(config, "captioner", CAPTIONER_FIELDS)
    writing = check_caption_settings(read_section(config, "caption", CAPTION_FIELDS))
    name, source = config.text.encoder, settings["source"]
    view = make_view(config, source, settings["map"])
    decoder = make_word_decoder(config, view, config.model)

    def init(rng, batch):
        vectors = jnp.zeros((1, decoder.places, view.channels))
        tokens = jnp.zeros((1, decoder.length), jnp.int32)
        return {"model": {"net": decoder.init(rng, vectors, tokens)["params"]}}, {}

    def vectors_of(frozen, batch):
        found = batch if source in batch else view.encoding.compute(frozen, batch["image"])
        return view.vectors(frozen, found[source])

    def loss(params, ctx: Context):
        """Return the cross-entropy in nats per token."""
        text = ctx.batch["text"][name]
        keys, smoothing = (ctx.keys, settings["smoothing"]) if ctx.train else (None, 0.0)
        net, vectors = {"params": params["model"]["net"]}, vectors_of(ctx.frozen, ctx.batch)
        logits: Any = decoder.apply(net, vectors, text["tokens"], keys)
        cross_entropy, accuracy = word_loss(logits, text["tokens"], text["mask"], smoothing)
        return cross_entropy, (ctx.extra, {"token_accuracy": accuracy})

    def caption(variables: Variables, inputs, keys, **settings):
        """Caption inputs["image"], uint8 [B, H, W, 3]: tokens int32 [B, length]."""
        vectors = vectors_of(variables.frozen, inputs)
        return write_captions(decoder, variables.params["model"]["net"], vectors, keys, **settings)

    return Family(
        init=init,
        losses={"model": loss},
        abilities={"caption": caption},
        settings={"caption": writing, "sample": {}},
        static=("beams",),
        frozen_depends_on=("first_stage.config", "image_tokenizer", "captioner"),
        make_frozen=view.make_frozen,
        encoding=view.encoding,
    )


def make_score(config) -> Callable:
    """Return score(variables, pictures uint8 [B, H, W, 3], text {"tokens", "mask"}) -> float [B].

    The score is log p(caption | picture) in nats, for families/reranking.py.
    """
    settings = read_section(config, "captioner", CAPTIONER_FIELDS)
    view = make_view(config, settings["source"], settings["map"])
    decoder = make_word_decoder(config, view, config.model)

    def score(variables: Variables, image, text):
        (encoded,) = view.encoding.compute(variables.frozen, image).values()
        net = {"params": variables.params["model"]["net"]}
        vectors = view.vectors(variables.frozen, encoded)
        logits: Any = decoder.apply(net, vectors, text["tokens"])
        mean_nats, _ = word_loss(logits, text["tokens"], text["mask"])
        return -mean_nats * text["mask"].sum(-1)

    return score
