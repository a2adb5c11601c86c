"""Autoregression from coarse to fine: each step draws the whole next finer grid of image tokens.

Source: VAR, arXiv 2404.02905. The tokens are those of a first stage whose quantizer has `scales`
(models/scales.py).
"""

from typing import Any

import jax
import jax.numpy as jnp

from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.random import derive_keys, split_keys
from t2i_jax.decoding.autoregressive import choose
from t2i_jax.families.conditioning import guidance_field, guide, make_conditioning
from t2i_jax.families.config_fields import read_section, transformer_sections
from t2i_jax.families.first_stage import (
    batch_codes,
    codes_abilities,
    encoding,
    load_codes,
    make_frozen,
)
from t2i_jax.families.reranking import CANDIDATES_FIELD, with_candidates
from t2i_jax.families.token_loss import cross_entropy
from t2i_jax.models.next_scale import NextScale, spans

SAMPLE_FIELDS = {
    "temperature": Field(1.0, "of drawing tokens; 0 takes the likeliest", 0.0),
    "top_k": Field(0, "how many of the likeliest tokens one is drawn from; 0 for all", 0, 2**24),
    "top_p": Field(0.9, "probability of the likeliest tokens that one is drawn from", 0.001, 1.0),
    "guidance": guidance_field(1.5),
    "candidates": CANDIDATES_FIELD,
}


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    return {**transformer_sections(NextScale), "sample": SAMPLE_FIELDS}


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, text, first_stage and reranker.

    Raises ValueError for a first stage without scales, and for an unknown field.
    """
    del axis_name  # nothing here compares examples
    stage, conditioning = load_codes(config, scales=True), make_conditioning(config)
    coarse_of = stage.coarse
    if coarse_of is None:
        raise ValueError("this first stage has scales and no `coarse`")
    network = NextScale(stage.size, stage.scales, remat=config.parallel.remat, **config.model)
    length = sum(side**2 for side in stage.scales)  # tokens of all grids

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        text_params, condition = conditioning.init(rng_text, batch)
        coarse = jnp.zeros((1, length, stage.channels))
        codebook = jnp.zeros((stage.size, stage.channels))
        net_params = network.init(rng_net, condition, coarse, codebook)["params"]
        return {"model": {"text": text_params, "net": net_params}}, {}

    def logits_of(model, frozen, condition, codes, keys=None) -> Any:
        coarse = coarse_of(frozen["first_stage"], codes)
        codebook = stage.vectors(frozen["first_stage"])
        return network.apply({"params": model["net"]}, condition, coarse, codebook, keys)

    def loss(params, ctx: Context):
        """Return the cross-entropy in nats per token, a mean over the tokens of all grids."""
        model = params["model"]
        drop_keys, keys = split_keys(ctx.keys, 2) if ctx.train else (None, None)
        text, codes = conditioning.training_text(ctx, drop_keys), batch_codes(stage, ctx)
        condition = conditioning.encode(model["text"], ctx.frozen, text, keys)
        logits = logits_of(model, ctx.frozen, condition, codes, keys)
        nats, likeliest = cross_entropy(logits, codes)
        return nats.mean(-1), (ctx.extra, {"token_accuracy": likeliest.mean(-1)})

    def sample(variables: Variables, inputs, keys, *, guidance, **settings):
        """Draw pictures uint8 [B, H, W, 3] with guided logits: one network call for each grid.

        settings: those of decoding.autoregressive.choose.
        """
        model, frozen = variables.params["model"], variables.frozen
        both = conditioning.with_null(conditioning.text_of(inputs), frozen)
        condition = conditioning.encode(model["text"], frozen, both)
        codes = jnp.zeros((len(keys), length), jnp.int32)
        for i, (_, first, last) in enumerate(spans(stage.scales)):
            logits = logits_of(model, frozen, condition, jnp.concatenate([codes, codes]))
            chosen = choose(
                derive_keys(keys, i), guide(logits, guidance)[:, first:last], **settings
            )
            codes = codes.at[:, first:last].set(chosen)
        return stage.decode(frozen["first_stage"], codes)

    return Family(
        init=init,
        losses={"model": loss},
        abilities={"sample": with_candidates(sample, config), **codes_abilities(stage)},
        settings={"sample": read_section(config, "sample", SAMPLE_FIELDS)},
        static=("candidates",),
        frozen_depends_on=("first_stage.config", "image_tokenizer"),
        make_frozen=make_frozen(stage),
        pretrained=conditioning.pretrained,
        encoding=encoding(stage, "codes", config),
    )
