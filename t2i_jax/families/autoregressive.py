"""Autoregressive text-to-image: a transformer that continues the caption with image tokens.

Sources: arXiv 2102.12092, 2206.10789. The image tokens are the codes of a first stage
(first_stage.py). With `captioning` the same transformer also continues image tokens with captions,
so that one model draws and captions.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.first_stage import Codes
from t2i_jax.core.random import split_keys
from t2i_jax.decoding.autoregressive import generate
from t2i_jax.families import reranking
from t2i_jax.families.captioning import (
    CAPTION_FIELDS,
    check_caption_settings,
    make_word_decoder,
    view_of_codes,
    word_loss,
    write_captions,
)
from t2i_jax.families.conditioning import (
    Conditioning,
    guidance_field,
    guide,
    make_conditioning,
)
from t2i_jax.families.config_fields import read_section, remat_of, transformer_sections
from t2i_jax.families.first_stage import (
    batch_codes,
    codes_abilities,
    encoding,
    image_tokenizer_fields,
    load_codes,
    make_frozen,
)
from t2i_jax.families.inpainting import make_inpaint
from t2i_jax.families.token_loss import part_cross_entropy
from t2i_jax.families.word_maps import normalised
from t2i_jax.models.attention import INTERMEDIATES
from t2i_jax.models.prefix_decoder import PrefixDecoder
from t2i_jax.models.word_attention import mean_self_attention

SAMPLE_FIELDS = {
    "temperature": Field(1.0, "of drawing tokens; 0 takes the likeliest", 0.0),
    "top_k": Field(0, "how many of the likeliest tokens one is drawn from; 0 for all", 0, 2**24),
    "top_p": Field(1.0, "probability of the likeliest tokens that one is drawn from", 0.001, 1.0),
    "guidance": guidance_field(1.0),
    "candidates": reranking.CANDIDATES_FIELD,
}
# In a mask, an object has to begin at a cell where the model, drawing freely, seldom begins one. A
# nucleus could exclude that. So nothing is excluded, and the best of many candidates is kept
# (docs/inpainting.md).
INPAINT_FIELDS = {
    "top_p": SAMPLE_FIELDS["top_p"],
    "candidates": reranking.CANDIDATES_FIELD._replace(default=32),
}
CAPTIONING_FIELD = Field(
    0.0, "share of each batch that is captioned too; 0 for a model that only draws", 0.0, 1.0
)


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    return {
        "": {"captioning": CAPTIONING_FIELD},
        **transformer_sections(PrefixDecoder, ("parts",)),
        "sample": SAMPLE_FIELDS,
        "inpaint": INPAINT_FIELDS,
        **({"caption": CAPTION_FIELDS} if config.get("captioning") else {}),
        **image_tokenizer_fields(config),
    }


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, text, first_stage and reranker.

    Raises ValueError for an unknown field, for fewer than one candidate, and for `captioning`
    together with `model.causal_text`.
    """
    del axis_name  # nothing here compares examples
    stage, conditioning = load_codes(config), make_conditioning(config)
    decoder = make_decoder(config, stage)
    captioning = config.get("captioning", CAPTIONING_FIELD.default)
    writer = make_writer(config, stage) if captioning else None
    own_sample = read_section(config, "sample", SAMPLE_FIELDS)
    settings = {
        "sample": own_sample,
        "inpaint": {**own_sample, **read_section(config, "inpaint", INPAINT_FIELDS)},
    }
    reranking.check_candidates(settings["sample"]["candidates"], can_rank=True)

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        text_params, condition = conditioning.init(rng_text, batch)
        codes = jnp.zeros((1, decoder.length), jnp.int32)
        codebook = jnp.zeros((stage.size, stage.channels))
        net_params = decoder.init(rng_net, condition, codes, codebook)["params"]
        params = {"text": text_params, "net": net_params}
        if writer:
            params["words"] = writer.init(jax.random.fold_in(rng, 2))
        return {"model": params}, {}

    def loss(params, ctx: Context):
        """Return the nats per image token, and those per caption token times `captioning`.

        In training only that share of the batch is captioned, each picture with full weight.
        """
        model = params["model"]
        drop_keys, keys = split_keys(ctx.keys, 2) if ctx.train else (None, None)
        text = conditioning.training_text(ctx, drop_keys)
        codebook, codes = stage.vectors(ctx.frozen["first_stage"]), batch_codes(stage, ctx)
        condition = conditioning.encode(model["text"], ctx.frozen, text, keys)
        nats, likeliest = part_nats(decoder, model["net"], condition, codes, codebook, keys)
        per_example = nats.sum(0).mean(-1)
        metrics = {"token_accuracy": likeliest.all(0).mean(-1)}
        if writer:
            rows = spread(len(codes), captioning if ctx.train else 1.0)
            whole = (codes, conditioning.text_of(ctx.batch), keys)
            captioned = jax.tree.map(lambda x: x[rows], whole)
            caption_loss, accuracy = writer.loss(model, ctx.frozen, *captioned)
            metrics |= {"caption_loss": caption_loss, "word_accuracy": accuracy}
            weight = captioning * len(codes) / len(rows)
            per_example = per_example.at[rows].add(weight * caption_loss)
        return per_example, (ctx.extra, metrics)

    abilities = {
        **make_drawing(config, stage, conditioning, decoder, writer),
        **codes_abilities(stage),
        "explain": make_explain(stage, conditioning, decoder, writer),
    }
    if writer:
        abilities["caption"] = writer.caption
        own = read_section(config, "caption", CAPTION_FIELDS)
        settings["caption"] = check_caption_settings(own)
    return Family(
        init=init,
        losses={"model": loss},
        abilities=abilities,
        settings=settings,
        static=("candidates", "beams") if writer else ("candidates",),
        frozen_depends_on=("first_stage.config", "image_tokenizer"),
        make_frozen=make_frozen(stage),
        pretrained=conditioning.pretrained,
        encoding=encoding(stage, "codes", config),
    )


def make_decoder(config, stage: Codes) -> PrefixDecoder:
    """Return the transformer of a config, for these codes."""
    sizes = {"codes": stage.size, "grid": stage.grid, "parts": stage.parts}
    return PrefixDecoder(**sizes, remat=remat_of(config), **config.model)


def spread(count: int, share: float) -> Int[np.ndarray, "N"]:
    """Return this share of 0 .. count - 1, rounded up, at equal distances.

    So devices that each have a part of a batch have as much to do, and take the same rows of it, if
    their parts can be divided so.
    """
    return np.floor(np.arange(math.ceil(share * count)) / share).astype(np.int64)


def part_nats(
    decoder: PrefixDecoder, net, condition, codes, codebook, keys=None
) -> tuple[Float[Array, "parts B N"], Bool[Array, "parts B N"]]:
    """Return the cross-entropy of each part of the codes in nats, and whether it is the likeliest.

    net: the parameters of the decoder.
    """
    all_logits: Any = decoder.apply(
        {"params": net}, condition, codes, codebook, keys, method="part_logits"
    )
    return part_cross_entropy(all_logits, codes, decoder.parts)


def make_drawing(
    config,
    stage: Codes,
    conditioning: Conditioning,
    decoder: PrefixDecoder,
    writer: "Writer | None",
) -> dict[str, Callable]:
    """Return the abilities `sample` and `inpaint`."""
    score = reranking.make_reranker(config)
    own_score = make_own_score(decoder, writer)

    def draw_best(variables: Variables, text, known, keys, *, candidates, guidance, **settings):
        """Draw codes int32 [B, N] with guided logits; see `sample`.

        known: of decoding.autoregressive.generate.
        """
        model, frozen = variables.params["model"], variables.frozen
        net, codebook = {"params": model["net"]}, stage.vectors(frozen["first_stage"])
        both = conditioning.with_null(text, frozen)
        condition = conditioning.encode(model["text"], frozen, both)
        caption_carry = decoder.apply(net, condition, codebook, method="prefill")

        def logits_of(carry, codes, i):
            twice = jnp.concatenate([codes, codes])
            logits, carry = decoder.apply(net, both["mask"], carry, twice, i, method="decode_step")
            return guide(logits, guidance), carry

        def second_of(carry, first):
            twice = jnp.concatenate([first, first])
            logits: Any = decoder.apply(net, carry, twice, method="second_part")
            return guide(logits, guidance)

        def draw(keys):
            rest = second_of if stage.parts else None
            how = {"second_of": rest, "known": known, **settings}
            return generate(logits_of, caption_carry, decoder.length, keys, **how)

        def score_of(codes):
            without_null = jax.tree.map(lambda x: x[: len(codes)], condition)
            found = own_score(model, frozen, without_null, codes, codebook, text)
            return found + (score(frozen, show(frozen, codes), text) if score else 0.0)

        return reranking.keep_best(draw, score_of, keys, candidates)

    def sample(variables: Variables, inputs, keys, **settings):
        """Draw pictures uint8 [B, H, W, 3] with guided logits.

        Of several candidates for a picture, keep the best by the model's `make_own_score`, to which
        a reranker adds its score.
        settings: `candidates`, `guidance`, and those of decoding.autoregressive.generate.
        """
        codes = draw_best(variables, conditioning.text_of(inputs), None, keys, **settings)
        return show(variables.frozen, codes)

    def show(frozen, codes):
        return stage.decode(frozen["first_stage"], codes)

    def draw_masked(variables, text, codes, masked, keys, settings):
        """Draw the masked codes, each given those before it.

        Whether they also fit those after them is judged by the score of a candidate, which is that
        of the whole picture.
        """
        return draw_best(variables, text, (codes, masked), keys, **settings)

    inpaint = make_inpaint(stage, conditioning, draw_masked, config.data.resolution)
    return {"sample": sample, "inpaint": inpaint}


def make_own_score(decoder: PrefixDecoder, writer: "Writer | None") -> Callable:
    """Return score(model, frozen, condition, codes, codebook, text) -> float32 [B], in nats.

    It is log p(codes | caption), to which a model that captions adds its log p(caption | codes). Of
    codes with two parts the former is that of the first parts: those tell what is where, and the
    second ones by what part of a pixel.
    """

    def score(model, frozen, condition, codes, codebook, text):
        found = -part_nats(decoder, model["net"], condition, codes, codebook)[0][0].sum(-1)
        return found + (writer.score(model, frozen, codes, text) if writer else 0.0)

    return score


def make_score(config) -> Callable:
    """Return score(variables, pictures uint8 [B, H, W, 3], text {"tokens", "mask"}) -> float [B].

    It is `make_own_score` of the codes of the pictures, for families/reranking.py.
    """
    stage, conditioning = load_codes(config), make_conditioning(config)
    decoder = make_decoder(config, stage)
    writer = make_writer(config, stage) if config.get("captioning") else None
    own_score = make_own_score(decoder, writer)

    def score(variables: Variables, image, text):
        model, frozen = variables.params["model"], variables.frozen
        condition = conditioning.encode(model["text"], frozen, text)
        codes = stage.encode(frozen["first_stage"], image)
        codebook = stage.vectors(frozen["first_stage"])
        return own_score(model, frozen, condition, codes, codebook, text)

    return score


def make_explain(
    stage: Codes, conditioning: Conditioning, decoder: PrefixDecoder, writer: "Writer | None"
) -> Callable:
    """Return the ability `explain`."""

    def explain(variables: Variables, inputs, keys=None):
        """Return word maps float32 [B, L, rows, columns] of pictures with these captions.

        inputs: "image" uint8 [B, H, W, 3], and "text".

        In drawing, a cell attends to the words: of the attention that it gives to the caption, each
        word has a share. In writing, a word attends to the cells. A cell belongs to a word as far
        as both say so: the map is their geometric mean. A model that only draws has only the
        shares.
        """
        model, frozen = variables.params["model"], variables.frozen
        text = conditioning.text_of(inputs)
        condition = conditioning.encode(model["text"], frozen, text)
        codes = stage.encode(frozen["first_stage"], inputs["image"])
        codebook = stage.vectors(frozen["first_stage"])
        given = (condition, codes, codebook)
        _, shown = decoder.apply(
            {"params": model["net"]}, *given, method="part_logits", mutable=[INTERMEDIATES]
        )
        words = condition.mask.shape[1]
        to_words = mean_self_attention(shown)[:, words:, :words]
        shares = to_words / to_words.sum(-1, keepdims=True)
        maps = shares.swapaxes(1, 2)
        if writer:
            maps = jnp.sqrt(maps * writer.attention(model, frozen, codes, text))
        return normalised(maps.reshape(*maps.shape[:2], *stage.grid), condition.mask)

    return explain


class Writer(NamedTuple):
    """How the transformer that draws also writes captions.

    init: (rng) -> the parameters "words", which only captions need.
    loss: (the player's params, frozen, codes, text, keys) -> (nats per token [B], accuracy [B]).
    score: (the player's params, frozen, codes, text) -> log p(caption | codes) in nats [B].
    caption: the ability.
    attention: (the player's params, frozen, codes, text) -> float32 [B, L, N], how much each word
        attends to each cell as it is written. Raises ValueError for texts of another length.
    """

    init: Callable
    loss: Callable
    score: Callable
    caption: Callable
    attention: Callable


def make_writer(config, stage: Codes) -> Writer:
    """Return the writer of captions: a `WordDecoder` whose transformer is the one that draws.

    Raises ValueError with `model.causal_text`, of which a WordDecoder knows nothing.
    """
    model = dict(config.model)
    if model.pop("causal_text", False):
        raise ValueError("captioning needs model.causal_text to be False")
    view = view_of_codes(stage, config)
    decoder = make_word_decoder(config, view, model)

    def init(rng):
        vectors = jnp.zeros((1, decoder.places, stage.channels))
        tokens = jnp.zeros((1, decoder.length), jnp.int32)
        params = decoder.init(rng, vectors, tokens)["params"]
        return {part: params[part] for part in params if part != "trunk"}

    def params_of(model):
        return {**model["words"], "trunk": model["net"]["trunk"]}

    def loss(model, frozen, codes, text, keys=None):
        vectors = view.vectors(frozen, codes)
        params = {"params": params_of(model)}
        logits: Any = decoder.apply(params, vectors, text["tokens"], keys)
        return word_loss(logits, text["tokens"], text["mask"])

    def score(model, frozen, codes, text):
        return -loss(model, frozen, codes, text)[0] * text["mask"].sum(-1)

    def caption(variables: Variables, inputs, keys, **settings):
        """Caption inputs["image"], uint8 [B, H, W, 3]: tokens int32 [B, length]."""
        frozen = variables.frozen
        vectors = view.vectors(frozen, stage.encode(frozen["first_stage"], inputs["image"]))
        params = params_of(variables.params["model"])
        return write_captions(decoder, params, vectors, keys, **settings)

    def attention(model, frozen, codes, text):
        if (given := text["tokens"].shape[1]) != decoder.length:
            raise ValueError(
                f"a caption of {given} tokens: this model writes {decoder.length} (text.length)"
            )
        vectors = view.vectors(frozen, codes)
        params = {"params": params_of(model)}
        _, shown = decoder.apply(params, vectors, text["tokens"], mutable=[INTERMEDIATES])
        return mean_self_attention(shown)[:, decoder.places :, : decoder.places]

    return Writer(init, loss, score, caption, attention)
