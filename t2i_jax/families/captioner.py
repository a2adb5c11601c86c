"""Captioning: a transformer that continues a picture with words (arXiv 1411.4555, 2108.10904).

The picture is given to it as the codes of a first stage (first_stage.py), or as a feature map of
EfficientNet-Lite0; `config.captioner` says which.

With `captioner.contrastive`, the model also learns a contrastive loss (BLIP, arXiv 2201.12086,
section 3.2): it compares the mean of the network's vectors of a picture with what the text encoder
of the config makes of its caption. BLIP's momentum encoder and its third loss, which tells true
from false pairs, are not here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.random import derive_keys
from t2i_jax.families.captioning import (
    CAPTION_FIELDS,
    SOURCES,
    check_caption_settings,
    make_view,
    make_word_decoder,
    word_loss,
    write_captions,
)
from t2i_jax.families.conditioning import make_conditioning
from t2i_jax.families.config_fields import read_section, transformer_sections
from t2i_jax.families.contrastive import limit_scale, refuse_parts
from t2i_jax.families.contrastive_loss import KINDS, contrast
from t2i_jax.families.first_stage import image_tokenizer_fields
from t2i_jax.models.shared_space import SharedSpace
from t2i_jax.models.word_decoder import WordDecoder

CAPTIONER_FIELDS = {
    "source": Field("codes", "what the network takes of a picture", choices=SOURCES),
    "map": Field(4, 'with "features": the map of EfficientNet-Lite0; 0 is the finest', 0),
    "smoothing": Field(0.0, "label smoothing in training (arXiv 1512.00567)", 0.0, 1.0),
    "contrastive": Field(0.0, "weight of a contrastive loss in training; 0 for none", 0.0),
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
    text.encoder other than "transformer", of which only the tokenizer is used, unless there is a
    contrastive loss; that one also refuses settings by which it would see a part of a batch.
    """
    settings = read_section(config, "captioner", CAPTIONER_FIELDS)
    writing = check_caption_settings(read_section(config, "caption", CAPTION_FIELDS))
    name, source = config.text.encoder, settings["source"]
    view = make_view(config, source, settings["map"])
    decoder = make_word_decoder(config, view, config.model)
    contrastive = make_contrastive(config, axis_name) if settings["contrastive"] else None
    limits: dict[str, Any] = {"constrain": limit_scale} if contrastive else {}

    def init(rng, batch):
        vectors = jnp.zeros((1, decoder.places, view.channels))
        tokens = jnp.zeros((1, decoder.length), jnp.int32)
        net = {"net": decoder.init(rng, vectors, tokens)["params"]}
        more = contrastive.init(rng, batch, decoder.width) if contrastive else {}
        return {"model": {**net, **more}}, {}

    def vectors_of(frozen, batch):
        found = batch if source in batch else view.encoding.compute(frozen, batch["image"])
        return view.vectors(frozen, found[source])

    def loss(params, ctx: Context):
        """Return the cross-entropy in nats per token; in training, plus the contrastive loss."""
        text = ctx.batch["text"][name]
        keys, smoothing = (ctx.keys, settings["smoothing"]) if ctx.train else (None, 0.0)
        net, vectors = {"params": params["model"]["net"]}, vectors_of(ctx.frozen, ctx.batch)
        found: Any = decoder.apply(net, vectors, text["tokens"], keys, method="with_picture")
        logits, picture = found
        loss, accuracy = word_loss(logits, text["tokens"], text["mask"], smoothing)
        metrics = {"token_accuracy": accuracy}
        if contrastive:
            contrast_loss, right = contrastive.loss(params["model"], ctx, picture)
            metrics.update(contrastive=contrast_loss, pairs_right=right)
            loss = loss + settings["contrastive"] * contrast_loss if ctx.train else loss
        return loss, (ctx.extra, metrics)

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
        **limits,
    )


class Contrastive(NamedTuple):
    """The contrastive loss of pictures and captions, which is added to that of writing.

    init: (rng, batch, width) -> its parameters, "text" and "space". width: of pictures' vectors.
    loss: (params, ctx, vectors of the pictures [B, width]) -> (the loss in nats [B], 1 where a
        picture is nearest to its own caption [B]).
    """

    init: Callable
    loss: Callable


def make_contrastive(config, axis_name) -> Contrastive:
    """Return the contrastive loss. Raises ValueError for settings that compute parts of a batch."""
    refuse_parts(config)
    kind, conditioning = KINDS["softmax"], make_conditioning(config)
    space = SharedSpace(config.text.width, kind.scale, kind.bias)

    def init(rng, batch, width):
        text_rng, space_rng = jax.random.split(jax.random.fold_in(rng, 1))
        text, condition = conditioning.init(text_rng, batch)
        both = space.init(space_rng, jnp.zeros((1, width)), condition.pooled)["params"]
        return {"text": text, "space": both}

    def loss(params, ctx: Context, picture):
        def projected(*vectors, method) -> Any:
            return space.apply({"params": params["space"]}, *vectors, method=method)

        text = conditioning.text_of(ctx.batch)
        keys = derive_keys(ctx.keys, 1) if ctx.train else None
        caption = conditioning.encode(params["text"], ctx.frozen, text, keys).pooled
        return contrast(
            kind,
            lambda a, b: projected(a, b, method="logits"),
            projected(picture, method="embed_image"),
            projected(caption, method="embed_text"),
            text["tokens"],
            ctx.weight,
            axis_name,
        )

    return Contrastive(init, loss)


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
