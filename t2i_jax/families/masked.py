"""Masked image transformer: image tokens drawn many at once, in a few steps.

Sources: MaskGIT, arXiv 2202.04200; Muse, arXiv 2301.00704. The image tokens are the codes of a
first stage (first_stage.py).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.first_stage import Codes
from t2i_jax.core.random import split_keys
from t2i_jax.core.registry import did_you_mean
from t2i_jax.decoding import parallel
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
from t2i_jax.families.reranking import CANDIDATES_FIELD, with_candidates
from t2i_jax.families.token_loss import mean_where, part_cross_entropy
from t2i_jax.models.masked_transformer import MaskedTransformer

# name: (tokens still masked after each step, settings) -> `keep` of `parallel.decode`
ORDERS: Mapping[str, Callable] = {
    "confidence": lambda remaining, s: parallel.by_confidence(remaining, s["choice_temperature"]),
    "surprise": lambda remaining, s: parallel.by_surprise(s["sure"], s["temperature"]),
}
SAMPLE_FIELDS = {
    "steps": Field(8, "steps of drawing, at most one for each token", 1, 65_536),
    "order": Field("confidence", "which tokens are drawn first", choices=tuple(ORDERS)),
    "schedule": Field(
        "cosine",
        'of order "confidence": how many tokens each step leaves masked',
        choices=tuple(parallel.SCHEDULES),
    ),
    "choice_temperature": Field(
        1.0, 'of order "confidence": randomness of the order; inf for any order', 0.0, math.inf
    ),
    "sure": Field(0.1, 'of order "surprise": draw every token with less entropy, in nats', 0.0),
    "doubt": Field(
        0.0, "mask a drawn token again if its probability falls below this; 0 for never", 0.0, 1.0
    ),
    "temperature": Field(1.0, "of drawing tokens; 0 takes the likeliest", 0.0),
    "top_k": Field(0, "how many of the likeliest tokens one is drawn from; 0 for all", 0, 2**24),
    "top_p": Field(1.0, "probability of the likeliest tokens that one is drawn from", 0.001, 1.0),
    "guidance": guidance_field(1.5),
    "candidates": CANDIDATES_FIELD,
}
MASK_SCHEDULE_FIELD = Field(
    "cosine",
    "of training: how many tokens are masked at a uniform progress",
    choices=tuple(parallel.SCHEDULES),
)
CORRUPTION_FIELD = Field(
    0.0, "of training: share of the visible tokens that are wrong, for `sample.doubt`", 0.0, 1.0
)


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    return {
        "": {"mask_schedule": MASK_SCHEDULE_FIELD, "corruption": CORRUPTION_FIELD},
        **transformer_sections(MaskedTransformer, ("parts",)),
        "sample": SAMPLE_FIELDS,
        **image_tokenizer_fields(config),
    }


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, text, first_stage and reranker.

    Raises ValueError for an unknown schedule or field, and for more steps than a picture has
    tokens.
    """
    del axis_name  # nothing here compares examples
    stage, conditioning = load_codes(config), make_conditioning(config)
    network = MaskedTransformer(
        codes=stage.size,
        grid=stage.grid,
        parts=stage.parts,
        remat=remat_of(config),
        **config.model,
    )
    gamma = parallel.mask_schedule(config.get("mask_schedule", MASK_SCHEDULE_FIELD.default))
    corruption = config.get("corruption", CORRUPTION_FIELD.default)
    settings = read_section(config, "sample", SAMPLE_FIELDS)
    make_keep(network.length, settings)  # raises for wrong settings
    draw = make_draw(stage, conditioning, network)

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        text_params, condition = conditioning.init(rng_text, batch)
        codes = jnp.zeros((1, network.length), jnp.int32)
        codebook = jnp.zeros((stage.size, stage.channels))
        net_params = network.init(rng_net, condition, codes, codes > 0, codebook)["params"]
        return {"model": {"text": text_params, "net": net_params}}, {}

    def loss(params, ctx: Context):
        """Return the nats of the masked codes over how many are masked on average.

        Each picture has one `random_mask`. All masked codes have the same weight (arXiv 2202.04200,
        equation 1); a mean for each picture would give most weight to those of nearly full ones.
        With `corruption`, in training, the visible codes count too.
        """
        model = params["model"]
        mask_keys, drop_keys, dropout_keys, wrong_keys = split_keys(ctx.keys, 4)
        keys = dropout_keys if ctx.train else None
        text = conditioning.training_text(ctx, drop_keys)
        codebook, codes = stage.vectors(ctx.frozen["first_stage"]), batch_codes(stage, ctx)
        masked = jax.vmap(lambda key: random_mask(key, gamma, network.length))(mask_keys)
        condition = conditioning.encode(model["text"], ctx.frozen, text, keys)
        net = {"params": model["net"]}
        counted, given = masked, codes
        if corruption and ctx.train:
            counted = jnp.ones_like(masked)
            given = jax.vmap(lambda key, row: corrupt(key, row, corruption))(wrong_keys, codes)
        logits: Any = network.apply(net, condition, given, masked, codebook, keys, codes)
        nats, likeliest = part_cross_entropy(logits, codes, stage.parts)
        metrics = {"token_accuracy": mean_where(masked, likeliest.all(0))}
        total = jnp.where(counted, nats.sum(0), 0).sum(-1)
        return total / mean_masked_count(gamma, network.length), (ctx.extra, metrics)

    def sample(variables: Variables, inputs, keys, **settings):
        """Draw pictures uint8 [B, H, W, 3]."""
        text = conditioning.text_of(inputs)
        start = jnp.zeros((len(keys), network.length), jnp.int32)
        codes = draw(variables, text, start, start == 0, keys, settings, network.length)
        return stage.decode(variables.frozen["first_stage"], codes)

    return Family(
        init=init,
        losses={"model": loss},
        abilities={
            "sample": with_candidates(sample, config),
            "inpaint": make_inpaint(stage, conditioning, draw, config.data.resolution),
            **codes_abilities(stage),
        },
        settings={
            "sample": settings,
            "inpaint": {name: settings[name] for name in settings if name != "candidates"},
        },
        static=("steps", "order", "schedule", "candidates"),
        frozen_depends_on=("first_stage.config", "image_tokenizer"),
        make_frozen=make_frozen(stage),
        pretrained=conditioning.pretrained,
        encoding=encoding(stage, "codes", config),
    )


def make_draw(stage: Codes, conditioning: Conditioning, network: MaskedTransformer) -> Callable:
    """Return draw(variables, text, codes, masked, keys, settings, count) -> codes int32 [B, N].

    It draws the codes that `masked` bool [B, N] marks, with guided logits, and keeps the others.
    settings: those of SAMPLE_FIELDS but `candidates`. Raises ValueError as `make_keep` does.
    count: how many are masked, if it is the same int for all pictures.
    """

    def draw(variables: Variables, text, codes, masked, keys, settings, count=None):
        model, frozen = variables.params["model"], variables.frozen
        net, codebook = {"params": model["net"]}, stage.vectors(frozen["first_stage"])
        both = conditioning.with_null(text, frozen)
        condition = conditioning.encode(model["text"], frozen, both)

        def twice(x):
            return jnp.concatenate([x, x])

        def first_of(codes, masked):
            hidden = network.apply(
                net, condition, twice(codes), twice(masked), codebook, method="hidden"
            )
            logits: Any = network.apply(net, hidden, method="first_part")
            return guide(logits, settings["guidance"]), hidden

        def second_of(hidden, first):
            logits: Any = network.apply(net, hidden, twice(first), method="second_part")
            return guide(logits, settings["guidance"])

        choice = {
            name: settings[name] for name in ("steps", "temperature", "top_k", "top_p", "doubt")
        }
        count = masked.sum(-1) if count is None else count
        keep, rest = make_keep(count, settings), second_of if stage.parts else None
        return parallel.decode(first_of, codes, masked, keys, keep, second_of=rest, **choice)

    return draw


def make_keep(count: int | Int[Array, "B"], settings: Mapping[str, Any]) -> Callable:
    """Return `keep` of `parallel.decode` for `count` masked tokens and settings of SAMPLE_FIELDS.

    Raises ValueError for an unknown order or schedule and, if `count` is an int, for more steps
    than tokens.
    """
    schedule = parallel.mask_schedule(settings["schedule"])
    remaining = parallel.remaining_counts(schedule, count, settings["steps"])
    order = settings["order"]
    if order not in ORDERS:
        raise ValueError(
            f"there is no order {order!r}: there are {', '.join(ORDERS)}"
            f"{did_you_mean(order, ORDERS)}"
        )
    return ORDERS[order](remaining, settings)


def random_mask(key: Key[Array, ""], gamma: Callable, length: int) -> Bool[Array, "length"]:
    """Draw a mask of `length` tokens for training: True at `parallel.masked_count` random places.

    The count is at least 1. It follows from the schedule `gamma` at a uniformly random progress.
    """
    progress_key, place_key = jax.random.split(key)
    count = parallel.masked_count(gamma, jax.random.uniform(progress_key), length)
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(place_key, (length,))))
    return rank < jnp.maximum(count, 1)


def corrupt(key: Key[Array, ""], codes: Int[Array, "N"], share) -> Int[Array, "N"]:
    """Return codes of which `share`, on average, were replaced by codes of other places."""
    where_key, place_key = jax.random.split(key)
    others = codes[jax.random.randint(place_key, codes.shape, 0, len(codes))]
    return jnp.where(jax.random.bernoulli(where_key, share, codes.shape), others, codes)


def mean_masked_count(gamma: Callable, length: int) -> Float[Array, ""]:
    """Return how many tokens `random_mask` masks on average."""
    progress = (jnp.arange(1000) + 0.5) / 1000
    return jnp.maximum(parallel.masked_count(gamma, progress, length), 1).mean()
