"""Stable Diffusion 1, 2 and XL (arXiv 2112.10752, 2307.01952), as published.

The player "model" is the U-Net. The text encoders and the autoencoder are frozen parts: those of a
published model (convert/diffusers.py), which are in the run folder. The loss is that of
diffusion.py, at the timesteps and noise levels of the published scheduler.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.core.denoiser import Denoiser
from t2i_jax.core.family import Family
from t2i_jax.core.fields import Field
from t2i_jax.diffusion.samplers import make_sampler
from t2i_jax.families import redrawing
from t2i_jax.families.conditioning import make_conditioning
from t2i_jax.families.config_fields import network_fields, read_section, remat_of
from t2i_jax.families.denoising import GUIDANCE_FIELDS, Plan
from t2i_jax.families.diffusion import LOSS_FIELDS
from t2i_jax.families.published_autoencoder import (
    autoencoder_fields,
    check_sizes,
    make_latents,
    side_fields,
)
from t2i_jax.families.published_pipeline import PUBLISHED, make_family, sampler_field
from t2i_jax.families.reranking import CANDIDATES_FIELD
from t2i_jax.models import sd_unet
from t2i_jax.models.variants import fields_of
from t2i_jax.weights.scheduler import Scheduler, read_scheduler, with_sampler
from t2i_jax.weights.scheduler_classes import NAMES

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
GREY = 127.5  # level of what is hidden from a network for inpainting
EMPHASIS = "emphasis"  # the name of a setting: see text/emphasis.py
DIFFUSION_FIELDS = {
    "scheduler": Field(SCHEDULER, "noise levels, prediction and sampler: a scheduler_config.json"),
    **LOSS_FIELDS,
}


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    variant = config.get("model", {}).get("variant", "")
    unet = network_fields(sd_unet.UNet2DConditionModel, variant=variant)
    # Not those of a picture, as in other networks.
    unet["channels"] = unet["channels"]._replace(low=1, high=2**16)
    return {
        "model": unet,
        "vae": autoencoder_fields(config),
        "diffusion": DIFFUSION_FIELDS,
        "sample": sample_fields(config),
        **redrawing.FIELDS,
    }


def sample_fields(config) -> dict[str, Field]:
    """Return the fields of the section "sample". Pictures have the size of the training data."""
    return {
        "sampler": sampler_field(NAMES),
        "steps": Field(50, "steps of the sampler", 1, 10_000),
        **GUIDANCE_FIELDS,
        "guidance": GUIDANCE_FIELDS["guidance"]._replace(default=7.5),
        **side_fields(config),
        EMPHASIS: Field(False, "brackets in prompts are weights: (more), [less], (word:1.3)"),
        "candidates": CANDIDATES_FIELD,
    }


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, text and reranker.

    Raises ValueError for an unknown name or field of these.
    """
    del axis_name  # nothing here compares examples
    section = read_section(config, "diffusion", DIFFUSION_FIELDS)
    published, conditioning = {**section["scheduler"]}, make_conditioning(config)
    side = config.data.resolution
    trained = make_denoiser(config, side, side)

    def make_plan(*, sampler, steps, width, height, tile, emphasis, **guidance):
        del emphasis  # a text that was read with it has weights
        about = published if sampler == PUBLISHED else with_sampler(published, sampler)
        scheduler = read_scheduler(about)
        times = scheduler.times(steps)
        with jax.ensure_compile_time_eval():
            noise_scale = scheduler.noise_scale(times)
        solve = functools.partial(make_sampler(scheduler.sampler), **scheduler.options)
        denoiser = as_told(make_denoiser(config, height, width, tile), scheduler)
        return Plan(denoiser, solve, jnp.asarray(times), noise_scale, guidance)

    settings = read_section(config, "sample", sample_fields(config))
    return make_family(config, trained, conditioning, make_plan, section, settings)


def make_denoiser(config, height: int, width: int, tile: int = 0) -> Denoiser:
    """Return the denoiser of pictures of this size, in pixels.

    tile: of the autoencoder, see `make_latents`.
    Raises ValueError, naming the nearest, for a side that is not a multiple of a latent's.
    """
    conditioning, net = make_conditioning(config), make_net(config)
    latents = make_latents(config, height, width, tile=tile)
    check_sizes(config)
    about = {**read_section(config, "diffusion", DIFFUSION_FIELDS)["scheduler"]}
    scheduler, timesteps = read_scheduler(about), about.get("num_train_timesteps", 1000)

    def with_size(condition, x):
        """Add the numbers of XL: original size, corner of the crop, target size (section 2.2)."""
        if not net.added_width:
            return condition
        side = height // latents.shape[0] * np.array(x.shape[1:3])
        numbers = jnp.asarray([*side, 0, 0, *side], jnp.float32)
        numbers = jnp.broadcast_to(numbers, (len(condition.pooled), len(numbers)))
        return condition._replace(vector=numbers)

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        text_params, condition = conditioning.init(rng_text, batch)
        x = jnp.zeros((1, *latents.shape[:2], net.in_channels))
        params = net.init(rng_net, x, jnp.zeros(1), with_size(condition, x))["params"]
        return {"text": text_params, "net": params}

    def encode_text(params, frozen, text, keys=None):
        return conditioning.encode(params["text"], frozen, text, keys)

    def predict(params, x_t, t, condition, keys=None, seen=None):
        if seen is not None:  # of B examples, or of one for all; guidance has 2 B
            seen = jnp.tile(seen, (len(x_t) // len(seen), 1, 1, 1))
            x_t = jnp.concatenate([x_t, seen], axis=-1)
        return net.apply({"params": params["net"]}, x_t, t, with_size(condition, x_t))

    def see(stage, inputs):
        mask = jnp.asarray(inputs.get("mask", jnp.ones((1, height, width), bool)))
        image = jnp.asarray(inputs.get("image", jnp.zeros((1, height, width, 3))), jnp.float32)
        around = latents.encode(stage, jnp.where(mask[..., None], GREY, image))
        cells = redrawing.in_cells(mask, latents.shape[:2])[..., None]
        cells = jnp.broadcast_to(cells, (len(around), *cells.shape[1:]))
        seen = jnp.concatenate([cells.astype(around.dtype), around], axis=-1)
        return denoiser._replace(predict=functools.partial(predict, seen=seen), see=None)

    def draw_times(keys):
        u = jax.vmap(jax.random.uniform)(keys)
        return (jnp.floor(u * timesteps) + 1.0) / timesteps

    denoiser = Denoiser(
        init, encode_text, predict, scheduler.schedule, scheduler.kind, draw_times, latents
    )
    return denoiser if net.in_channels == net.out_channels else denoiser._replace(see=see)


def as_told(denoiser: Denoiser, scheduler: Scheduler) -> Denoiser:
    """Return the denoiser with the schedule of a sampler, and the timesteps that it tells."""

    def predict(params, x_t, t, condition, keys=None):
        told = (scheduler.timestep(t) + 1.0) / sd_unet.TIMESTEPS
        return denoiser.predict(params, x_t, told, condition, keys)

    see = denoiser.see
    return denoiser._replace(
        predict=predict,
        schedule=scheduler.schedule,
        kind=scheduler.kind,
        see=see and (lambda *args: as_told(see(*args), scheduler)),
    )


def make_net(config) -> sd_unet.UNet2DConditionModel:
    """Return the U-Net of `config.model`: its fields, and `variant`."""
    own = fields_of(config.model, sd_unet.VARIANTS)
    return sd_unet.UNet2DConditionModel(**own, remat=remat_of(config))
