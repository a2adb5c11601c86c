"""Stable Diffusion 3 (arXiv 2403.03206) and FLUX.1, as published.

The player "model" is a transformer over patches of latents that predicts the velocity of a
rectified flow. The text encoders and the autoencoder are frozen parts: those of a published model
(convert/diffusers_flow.py), which are in the run folder.

FLUX.1-dev was distilled from a guided model: the strength of guidance is an input of the network,
which is called once a step. FLUX.1-schnell has no such input, and draws in 4 steps.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from t2i_jax.core.denoiser import Denoiser
from t2i_jax.core.family import Family
from t2i_jax.core.fields import Field
from t2i_jax.diffusion.samplers import make_sampler
from t2i_jax.families import redrawing
from t2i_jax.families.conditioning import make_conditioning
from t2i_jax.families.config_fields import network_fields, read_section, remat_of
from t2i_jax.families.denoising import GUIDANCE_FIELDS, Plan
from t2i_jax.families.diffusion import LOSS_FIELDS, TIME_FIELDS, make_draw_times
from t2i_jax.families.published_autoencoder import (
    autoencoder_fields,
    check_sizes,
    make_latents,
    side_fields,
)
from t2i_jax.families.published_pipeline import PUBLISHED, make_family, sampler_field
from t2i_jax.families.reranking import CANDIDATES_FIELD
from t2i_jax.models import flux_transformer, sd3_transformer
from t2i_jax.models.flux_transformer import PATCH, FluxTransformer
from t2i_jax.models.sd3_transformer import SD3Transformer
from t2i_jax.models.variants import fields_of
from t2i_jax.weights.scheduler import read_scheduler, with_sampler
from t2i_jax.weights.scheduler_classes import FLOW_NAMES

NETWORKS = {"sd3_transformer": SD3Transformer, "flux_transformer": FluxTransformer}
VARIANTS = {**sd3_transformer.VARIANTS, **flux_transformer.VARIANTS}
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
DIFFUSION_FIELDS = {
    "scheduler": Field(SCHEDULER, "times and sampler: a scheduler_config.json"),
    **LOSS_FIELDS,
    **TIME_FIELDS,
}


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    model = config.get("model", {})
    network = Field("sd3_transformer", "the network", choices=tuple(NETWORKS))
    kind = NETWORKS.get(model.get("network", network.default), SD3Transformer)
    return {
        "model": {"network": network, **network_fields(kind, variant=model.get("variant", ""))},
        "vae": autoencoder_fields(config),
        "diffusion": DIFFUSION_FIELDS,
        "sample": sample_fields(config),
        **redrawing.FIELDS,
    }


def sample_fields(config) -> dict[str, Field]:
    """Return the fields of the section "sample": those of guidance depend on the network."""
    guidance = GUIDANCE_FIELDS["guidance"]
    net = make_net(config)
    if isinstance(net, SD3Transformer):
        guiding = {**GUIDANCE_FIELDS, "guidance": guidance._replace(default=7.0)}
    elif net.guidance:
        meaning = "what the network is told of the strength of guidance"
        guiding = {"guidance": guidance._replace(default=3.5, meaning=meaning)}
    else:
        guiding = {}
    return {
        "sampler": sampler_field(FLOW_NAMES),
        "steps": Field(28 if guiding else 4, "steps of the sampler", 1, 10_000),
        **guiding,
        **side_fields(config),
        "candidates": CANDIDATES_FIELD,
    }


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, text and reranker.

    Raises ValueError for an unknown name or field of these.
    """
    del axis_name  # nothing here compares examples
    section = read_section(config, "diffusion", DIFFUSION_FIELDS)
    published, conditioning = {**section["scheduler"]}, make_conditioning(config)
    net, side = make_net(config), config.data.resolution
    of_flux, patch = isinstance(net, FluxTransformer), patch_of(net)
    trained = make_denoiser(config, side, side)

    def make_plan(*, sampler, steps, width, height, tile, **guidance):
        about = published if sampler == PUBLISHED else with_sampler(published, sampler)
        scheduler = read_scheduler(about, even=of_flux)
        told = guidance.pop("guidance", None) if of_flux else None
        denoiser = make_denoiser(config, height, width, told, tile)
        rows, columns, _ = denoiser.latents.shape
        times = scheduler.times(steps, (rows // patch) * (columns // patch))
        solve = functools.partial(make_sampler(scheduler.sampler), **scheduler.options)
        return Plan(denoiser, solve, jnp.asarray(times), 1.0, None if of_flux else guidance)

    settings = read_section(config, "sample", sample_fields(config))
    return make_family(config, trained, conditioning, make_plan, section, settings)


def make_denoiser(config, height: int, width: int, guidance: Any = None, tile: int = 0) -> Denoiser:
    """Return the denoiser of pictures of this size, in pixels.

    guidance: what a network that has this input is told; None for 1, as in training.
    tile: of the autoencoder, see `make_latents`.
    Raises ValueError, naming the nearest, for a side that is not made of whole patches.
    """
    conditioning, net = make_conditioning(config), make_net(config)
    section = read_section(config, "diffusion", DIFFUSION_FIELDS)
    latents = make_latents(config, height, width, patch_of(net), tile)
    check_sizes(config, patch_of(net))
    scheduler = read_scheduler({**section["scheduler"]})
    told = isinstance(net, FluxTransformer) and net.guidance

    def with_guidance(condition):
        if not told:
            return condition
        strength = jnp.asarray(1.0 if guidance is None else guidance, jnp.float32)
        return condition._replace(vector=jnp.broadcast_to(strength, (len(condition.pooled), 1)))

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        text_params, condition = conditioning.init(rng_text, batch)
        x = jnp.zeros((1, *latents.shape))
        params = net.init(rng_net, x, jnp.zeros(1), with_guidance(condition))["params"]
        return {"text": text_params, "net": params}

    def encode_text(params, frozen, text, keys=None):
        return with_guidance(conditioning.encode(params["text"], frozen, text, keys))

    def predict(params, x_t, t, condition, keys=None):
        return net.apply({"params": params["net"]}, x_t, t, condition)

    draw_times = make_draw_times(section)
    return Denoiser(
        init, encode_text, predict, scheduler.schedule, scheduler.kind, draw_times, latents
    )


def make_net(config) -> Any:
    """Return the transformer of `config.model`: its fields, `network` and `variant`."""
    name = config.model.get("network", "sd3_transformer")
    return NETWORKS[name](**fields_of(config.model, VARIANTS), remat=remat_of(config))


def patch_of(net: Any) -> int:
    """Return the side of the square of latents that is one token of the network."""
    return PATCH if isinstance(net, FluxTransformer) else net.patch
