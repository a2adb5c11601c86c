"""The embedder: another run, which embeds pictures and captions in one space, and stays frozen.

It is named as a first stage is: the run's folder is `config.embedder.run`, its config
`config.embedder.config`, and its variables are copied into the run that uses them, as the frozen
part "embedder". A decoder is conditioned on its embeddings of pictures (unclip.py; DALL-E 2, arXiv
2204.06125). A prior (prior.py) has it as its first stage.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from t2i_jax.core.family import Context, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.random import split_keys
from t2i_jax.core.registry import lookup
from t2i_jax.core.text import TextCondition
from t2i_jax.families.conditioning import (
    Conditioning,
    drop_captions,
    drop_words,
    join,
    make_conditioning,
    null_like,
)
from t2i_jax.families.config_fields import read_section
from t2i_jax.models.embedding_tokens import EmbeddingTokens

EMBEDDER_FIELDS = {
    "run": Field(
        "", "run whose embedding of the picture replaces the caption; empty: the caption stays"
    ),
    "config": Field({}, "that run's config; filled in when training starts"),
    "tokens": Field(4, "tokens of the embedding, which the network attends to", 1, 256),
    "captions": Field(
        0.0, "share of training pictures whose caption is read beside the embedding", 0.0, 1.0
    ),
}


class Embedder(NamedTuple):
    """How a run embeds pictures and captions, as unit vectors of one space.

    arrays: what `copy` returns, {"params", "extra", "frozen"}: the frozen part.
    channels: C, how many numbers a vector has.
    image: (arrays, pictures uint8 [B, H, W, 3]) -> float32 [B, C].
    text: (arrays, text {"tokens", "mask"} of B captions) -> float32 [B, C].
    copy: (read_run of `Family.make_frozen`) -> arrays.
    """

    channels: int
    image: Callable[[Mapping, Any], Any]
    text: Callable[[Mapping, Mapping], Any]
    copy: Callable[[Callable], dict]


def load_embedder(config, section: str = "embedder") -> Embedder:
    """Return the embedder that a section of a config names.

    Raises ValueError if none is named, its family embeds nothing, or it takes pictures of another
    size.
    """
    run = config[section].run
    if not run:
        raise ValueError(
            f"family {config.family!r} needs config.{section}.run, the folder of a run of family "
            "'contrastive'"
        )
    other: Any = ConfigDict(config[section].config.to_dict()).lock()
    if other.family != "contrastive":
        raise ValueError(
            f"{section}.run: {run} is a run of family {other.family!r}; it must be 'contrastive'"
        )
    if (takes := other.data.resolution) != (has := config.data.resolution):
        raise ValueError(
            f"{section}.run: {run} embeds pictures of {takes} px, and these have {has} px"
        )
    able, encoder = lookup("families", other.family)(other).abilities, other.text.encoder

    def image(arrays, pictures):
        return able["embed_image"](Variables(**arrays), {"image": pictures}, None)

    def text(arrays, text):
        return able["embed_text"](Variables(**arrays), {"text": {encoder: text}}, None)

    def copy(read_run):
        return jax.tree.map(np.asarray, read_run(run)._asdict())

    return Embedder(other.contrastive.channels, image, text, copy)


def unit_variance(vectors: Float[Array, "B C"]) -> Float[Array, "B C"]:
    """Return unit vectors scaled so that their numbers have a mean square of 1, as noise has."""
    return jnp.sqrt(vectors.shape[-1]) * vectors


def conditioning_of(config) -> Conditioning:
    """Return the conditioning on captions, or on embeddings where `config.embedder` names a run."""
    base = make_conditioning(config)
    if not config.get("embedder", {}).get("run"):
        return base
    return condition_on_embeddings(base, load_embedder(config), config)


def condition_on_embeddings(base: Conditioning, embedder: Embedder, config) -> Conditioning:
    """Return `base` with embeddings of pictures in place of captions, or beside them.

    An embedding is one more entry of a text, "embedding" [B, C]; zeros are the null embedding. In
    training it is dropped with probability `config.caption_dropout`. The caption is dropped
    independently of it, except for the share `embedder.captions` (arXiv 2204.06125, section 2.1);
    its words are left out with probability `config.word_dropout`.
    """
    section = read_section(config, "embedder", EMBEDDER_FIELDS)
    share, nothing = section["captions"], jnp.zeros(embedder.channels)
    tokens = EmbeddingTokens(section["tokens"], config.text.get("width", 128))

    def condition_of(params, embedding, caption: TextCondition | None) -> TextCondition:
        embedding = unit_variance(embedding)
        sequence: Any = tokens.apply({"params": params["tokens"]}, embedding)
        alone = TextCondition(sequence, embedding, jnp.ones(sequence.shape[:2], bool))
        if caption is None:
            return alone
        both = zip(alone[:3], caption[:3], strict=True)  # padding stands at the end
        return TextCondition(*(jnp.concatenate(pair, axis=1) for pair in both))

    def init(rng, batch):
        rng_tokens, rng_caption = jax.random.split(rng)
        params = {"tokens": tokens.init(rng_tokens, nothing[None])["params"]}
        caption = None
        if share:
            params["caption"], caption = base.init(rng_caption, batch)
        return params, condition_of(params, nothing[None], caption)

    def encode(params, frozen, text, keys=None):
        caption = base.encode(params["caption"], frozen, text, keys) if share else None
        return condition_of(params, text["embedding"], caption)

    def training_text(ctx: Context, keys):
        text: Mapping = base.text_of(ctx.batch)
        vectors = embedder.image(ctx.frozen["embedder"], ctx.batch["image"])
        picture: Mapping = {"embedding": vectors}
        if ctx.train:
            keys, caption_keys = split_keys(keys, 2)
            text = drop_words(text, caption_keys, config.get("word_dropout", 0.0))
            text = drop_captions(text, base.null(ctx.frozen), caption_keys, 1.0 - share)
            picture = drop_captions(picture, {"embedding": nothing}, keys, config.caption_dropout)
        return {**text, **picture}

    def null(frozen):
        return {**base.null(frozen), "embedding": nothing}

    def pretrained(params):
        if not share:
            return params
        inner = {player: {"text": own["text"]["caption"]} for player, own in params.items()}
        captions = {player: own["text"] for player, own in base.pretrained(inner).items()}
        return {
            player: {**own, "text": {**own["text"], "caption": captions[player]}}
            for player, own in params.items()
        }

    return base._replace(
        init=init,
        encode=encode,
        training_text=training_text,
        null=null,
        with_null=lambda text, frozen: join(text, null_like(text, null(frozen))),
        pretrained=pretrained,
    )
