"""Diffusion and flow matching: a network that removes noise.

Sources: arXiv 2006.11239, 2209.03003, 2403.03206. The network works in pixels, or in the latents of
a first stage (arXiv 2112.10752; first_stage.py). Rectified flow, DDPM and what lies between differ
only in `config.diffusion`: schedule, parameterization, weighting and the distribution of training
times are separate functions (t2i_jax/diffusion).

Other families that remove noise build on `make_denoiser` and `family_parts`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from t2i_jax.core.denoiser import Denoiser
from t2i_jax.core.family import Context, Family
from t2i_jax.core.fields import Field
from t2i_jax.core.random import draw_normal, split_keys
from t2i_jax.core.registry import lookup
from t2i_jax.diffusion.parameterizations import KINDS, WEIGHTINGS, target, weight
from t2i_jax.diffusion.samplers import SAMPLERS, make_sampler, time_grid
from t2i_jax.diffusion.schedules import (
    SCHEDULES,
    TIME_DISTRIBUTIONS,
    make_schedule,
    make_time,
    shift,
)
from t2i_jax.families import redrawing, unclip
from t2i_jax.families.conditioning import Conditioning
from t2i_jax.families.config_fields import network_fields, read_section, remat_of
from t2i_jax.families.denoising import (
    GUIDANCE_FIELDS,
    NEGATIVE,
    Plan,
    check_interval,
    make_sample,
)
from t2i_jax.families.embedder import conditioning_of
from t2i_jax.families.first_stage import (
    batch_latents,
    eigenpictures_fields,
    encoding,
    load_latents,
    make_frozen,
)
from t2i_jax.families.reranking import CANDIDATES_FIELD, with_candidates
from t2i_jax.families.word_maps import word_map_abilities
from t2i_jax.models.fusion import TEXT_MODES
from t2i_jax.models.recompute import with_remat
from t2i_jax.models.word_attention import token_maps

NETWORK_FIELD = Field("dit", "the network: a file of models/")
LOSS_FIELDS = {
    "weighting": Field(
        "uniform", "weight of the loss at each level of noise", choices=tuple(WEIGHTINGS)
    ),
    "offset_noise": Field(
        0.0, "standard deviation of noise in training that is equal over a whole channel", 0.0, 1.0
    ),
}
TIME_FIELDS = {
    "time": Field(
        "logit_normal", "distribution of training times", choices=tuple(TIME_DISTRIBUTIONS)
    ),
    "mean": Field(0.0, 'mean of the logit of training times under "logit_normal"'),
    "std": Field(1.0, "standard deviation of that logit", 0.0),
    "shift": Field(1.0, "factor by which training times are moved towards noise", 1e-3),
}
DIFFUSION_FIELDS = {
    "schedule": Field(
        "rectified", "how noisy an example is at each time", choices=tuple(SCHEDULES)
    ),
    "parameterization": Field("velocity", "what the network predicts", choices=KINDS),
    **LOSS_FIELDS,
    **TIME_FIELDS,
}
SAMPLE_FIELDS = {
    "sampler": Field("heun", "method that solves for the picture", choices=tuple(SAMPLERS)),
    "steps": Field(25, "steps of the sampler", 1, 10_000),
    **GUIDANCE_FIELDS,
    "shift": Field(1.0, "factor by which the sampler's times are moved towards noise", 1e-3),
    "candidates": CANDIDATES_FIELD,
}
SHARPNESS = 20.0  # of prototypes' scores at the start, per unit of the cosine


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    model = config.get("model", {})
    network = type(lookup("models", model.get("network", NETWORK_FIELD.default))({}))
    choices, variant = {"text_mode": (*TEXT_MODES,)}, model.get("variant", "")
    own = network_fields(network, ("features",), choices, variant)
    return {
        "model": {"network": NETWORK_FIELD, **own},
        "diffusion": DIFFUSION_FIELDS,
        "sample": SAMPLE_FIELDS,
        **redrawing.FIELDS,
        **unclip.FIELDS,
        **eigenpictures_fields(config),
    }


def make_denoiser(config, vector: int = 0) -> Denoiser:
    """Return the denoiser of a config. Fields: data, first_stage, text, model and diffusion.

    vector: how many numbers K the network is conditioned on besides the text and the time. They
        are `TextCondition.vector` [B, K], which the caller then sets before it calls `predict`.
    Raises ValueError for an unknown name or field of these sections.
    """
    settings = read_section(config, "diffusion", DIFFUSION_FIELDS)
    kind, schedule = settings["parameterization"], make_schedule(settings["schedule"])
    weight(settings["weighting"], kind, schedule(jnp.array(0.5)))  # raises for wrong names
    latents, conditioning = load_latents(config), conditioning_of(config)
    name = config.model.get("network", NETWORK_FIELD.default)
    shown = lookup("models", name)(config.model)
    network = with_remat(shown, remat_of(config))

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        text_params, condition = conditioning.init(rng_text, batch)
        if vector:
            condition = condition._replace(vector=jnp.zeros((1, vector)))
        x = jnp.zeros((1, *latents.shape))
        net_params = network.init(rng_net, x, jnp.zeros(1), condition)["params"]
        return {"text": text_params, "net": net_params}

    def encode_text(params, frozen, text, keys=None):
        return conditioning.encode(params["text"], frozen, text, keys)

    def predict(params, x_t, t, condition, keys=None):
        return network.apply({"params": params["net"]}, x_t, t, condition, keys)

    def attention(params, x_t, t, condition):
        return token_maps(shown, params["net"], x_t, t, condition)

    draw_times = make_draw_times(settings)
    denoiser = Denoiser(init, encode_text, predict, schedule, kind, draw_times, latents)
    attends = getattr(shown, "text_attention", "")
    return denoiser._replace(attention=attention) if attends else denoiser


def make_draw_times(settings: Mapping[str, Any]) -> Callable:
    """Return (keys [B]) -> training times [B]. settings: the fields TIME_FIELDS."""
    draw_time = make_time(settings["time"])

    def draw_times(keys):
        t = jax.vmap(lambda key: draw_time(key, settings["mean"], settings["std"]))(keys)
        return shift(t, settings["shift"])

    return draw_times


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, text, first_stage and reranker.

    Raises ValueError for an unknown name or field of these.
    """
    del axis_name  # nothing here compares examples
    denoiser, conditioning = make_denoiser(config), conditioning_of(config)
    section = read_section(config, "diffusion", DIFFUSION_FIELDS)

    make_plan = make_plan_of(denoiser)
    settings = read_section(config, "sample", SAMPLE_FIELDS)
    check_interval(settings)
    sample = with_candidates(make_sample(make_plan, conditioning), config)
    redrawn = redrawing.make_redrawing(make_plan, conditioning)
    if denoiser.latents.shape[:2] == (1, 1):
        del redrawn["inpaint"]  # one cell is the whole picture: no part of it can be kept
    family = Family(
        losses={"model": make_loss(denoiser, conditioning, section)},
        abilities={
            "sample": sample,
            **redrawn,
            **word_map_abilities(denoiser, conditioning),
        },
        settings={"sample": settings, **redrawing.redrawing_settings(config, settings)},
        static=("sampler", "steps", "candidates", "strength"),
        texts=(NEGATIVE,),
        **family_parts(config, denoiser, conditioning),
    )
    return unclip.with_embeddings(family, config)


def make_plan_of(denoiser: Denoiser) -> Callable[..., Plan]:
    """Return (**settings of SAMPLE_FIELDS) -> Plan, for pictures of one size."""

    def make_plan(*, sampler, steps, shift, height=0, width=0, **guidance):
        del height, width  # pictures have one size
        return Plan(denoiser, make_sampler(sampler), time_grid(steps, shift), 1.0, guidance)

    return make_plan


def make_loss(denoiser: Denoiser, conditioning: Conditioning, section: Mapping) -> Callable:
    """Return the loss of the player "model": the weighted squared error of what it predicts.

    section: the fields LOSS_FIELDS.
    The metric `velocity_mse` compares all parameterizations.
    """
    kind, schedule, weighting = denoiser.kind, denoiser.schedule, section["weighting"]

    def loss(params, ctx: Context):
        model = params["model"]
        drop_keys, dropout_keys, time_keys, noise_keys = split_keys(ctx.keys, 4)
        keys = dropout_keys if ctx.train else None
        text = conditioning.training_text(ctx, drop_keys)
        x0 = batch_latents(denoiser.latents, ctx)
        t = denoiser.draw_times(time_keys)
        noise = training_noise(noise_keys, x0.shape[1:], section["offset_noise"])
        c = schedule(t[:, None, None, None])
        condition = denoiser.encode_text(model, ctx.frozen, text, keys)
        x_t = c.alpha * x0 + c.sigma * noise
        prediction = denoiser.predict(model, x_t, t, condition, keys)
        error = jnp.mean((prediction - target(kind, x0, noise, c)) ** 2, axis=(1, 2, 3))
        c = schedule(t)
        metrics = {"velocity_mse": weight("velocity", kind, c) * error}
        return weight(weighting, kind, c) * error, (ctx.extra, metrics)

    return loss


def training_noise(
    keys: Key[Array, "B"], shape: tuple[int, ...], offset: float
) -> Float[Array, "B h w C"]:
    """Return unit noise of `shape` for each key, plus `offset` times one number for each channel.

    With the offset, the network learns to change the mean of a picture too (arXiv 2305.08891,
    section 2), so that it can draw very dark and very bright ones.
    """
    noise = draw_normal(keys, shape)
    if offset:
        whole = (1, 1, shape[-1])
        noise += offset * jax.vmap(
            lambda key: jax.random.normal(jax.random.fold_in(key, 1), whole)
        )(keys)
    return noise


def family_parts(config, denoiser: Denoiser, conditioning: Conditioning) -> dict[str, Any]:
    """Return those arguments of `Family` that all families with one denoiser have in common."""
    latents = denoiser.latents
    return {
        "init": lambda rng, batch: ({"model": denoiser.init(rng, batch)}, {}),
        "frozen_depends_on": ("first_stage.config", "eigenpictures"),
        "make_frozen": make_frozen(latents),
        "pretrained": conditioning.pretrained,
        "from_data": prototypes_from_data(config, conditioning),
        "encoding": encoding(latents, "latent", config) if config.first_stage.run else None,
    }


def prototypes_from_data(config, conditioning: Conditioning) -> Callable:
    """Return `Family.from_data`: the network starts as a search among training pictures.

    Its prototypes become latents of pictures, evenly spaced, and their scores the cosine of the
    pooled vectors of a caption and of theirs, times SHARPNESS. Without `config.model.prototypes`
    nothing changes. Raises ValueError if they are set and the latents are not computed beforehand
    (`first_stage.cache`).
    """
    count = config.model.get("prototypes", 0)
    if not count:
        return lambda params, frozen, columns: params
    if not config.first_stage.cache:
        raise ValueError(
            "model.prototypes start as latents of training pictures: set first_stage.cache=True"
        )

    def from_data(params, frozen, columns):
        latents, model = columns["latent"], params["model"]
        if count > len(latents):
            raise ValueError(
                f"model.prototypes is {count}, and there are {len(latents):,} training pictures"
            )
        index = np.arange(count) * len(latents) // count
        text = {name: x[index] for name, x in conditioning.text_of(columns).items()}
        keys = conditioning.encode(model["text"], frozen, text).pooled
        keys = keys / jnp.maximum(jnp.square(keys).sum(-1, keepdims=True), 1e-6)
        net = {
            **model["net"],
            "prototypes": {"embedding": jnp.asarray(latents[index].reshape(count, -1))},
            "scores_of_text": {**model["net"]["scores_of_text"], "kernel": SHARPNESS * keys.T},
        }
        return {**params, "model": {**model, "net": net}}

    return from_data
