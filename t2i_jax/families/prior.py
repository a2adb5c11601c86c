"""The prior of unCLIP: embeddings of pictures, drawn for captions (arXiv 2204.06125, section 2.2).

Its first stage is an embedder (embedder.py), whose embeddings of pictures are its latents. It is a
diffusion model of one vector, conditioned on what a trained text encoder says of the caption and on
the embedding of the caption. By default it predicts the clean vector, by the mean squared error
(equation 2).
"""

from typing import Any

import jax
import jax.numpy as jnp

from t2i_jax.core.denoiser import Denoiser
from t2i_jax.core.family import Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.first_stage import Latents
from t2i_jax.diffusion.schedules import make_schedule
from t2i_jax.families import diffusion
from t2i_jax.families.conditioning import Conditioning, guidance_field, make_conditioning
from t2i_jax.families.config_fields import network_fields, read_section
from t2i_jax.families.denoising import make_sample
from t2i_jax.families.embedder import Embedder, load_embedder, unit_variance
from t2i_jax.models.latent_mlp import LatentMLP
from t2i_jax.models.shared_space import unit_length

_CHANGED = {"schedule": "cosine", "parameterization": "x0", "time": "uniform"}
DIFFUSION_FIELDS = {
    name: field._replace(default=_CHANGED.get(name, field.default))
    for name, field in diffusion.DIFFUSION_FIELDS.items()
}
SAMPLE_FIELDS = {
    "sampler": diffusion.SAMPLE_FIELDS["sampler"]._replace(default="dpmpp_2m"),
    **{name: diffusion.SAMPLE_FIELDS[name] for name in ("steps", "shift")},
    "guidance": guidance_field(1.0),
}


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    del config
    return {
        "model": network_fields(LatentMLP),
        "diffusion": DIFFUSION_FIELDS,
        "sample": SAMPLE_FIELDS,
    }


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, text and first_stage.

    Raises ValueError as `load_embedder` does, and for an unknown name or field.
    """
    del axis_name  # nothing here compares examples
    embedder, conditioning = load_embedder(config, "first_stage"), make_conditioning(config)
    section = read_section(config, "diffusion", DIFFUSION_FIELDS)
    denoiser = make_denoiser(config, section, embedder, conditioning)
    sample = make_sample(diffusion.make_plan_of(denoiser), conditioning)
    settings = read_section(config, "sample", SAMPLE_FIELDS)

    def embed_image(variables: Variables, inputs, keys=None):
        """Embed inputs["image"] by the first stage: unit vectors float32 [B, C]."""
        del keys
        return embedder.image(variables.frozen["first_stage"], inputs["image"])

    def embed_text(variables: Variables, inputs, keys):
        """Draw the embedding of a picture of each of inputs["text"]: float32 [B, C]."""
        return sample(variables, inputs, keys, **settings)

    abilities: dict[str, Any] = {"embed_image": embed_image, "embed_text": embed_text}
    return Family(
        losses={"model": diffusion.make_loss(denoiser, conditioning, section)},
        abilities=abilities,
        settings={"sample": {}},
        **diffusion.family_parts(config, denoiser, conditioning),
    )


def make_denoiser(config, section, embedder: Embedder, conditioning: Conditioning) -> Denoiser:
    """Return the denoiser of embeddings, whose examples are [1, 1, C].

    Its condition is `pooled`: what the text encoder gives, and the embedding of the caption.
    section: of DIFFUSION_FIELDS.
    """
    net, latents = LatentMLP(**config.model), latents_of(embedder)

    def with_caption_embedding(condition, vectors):
        both = [condition.pooled, unit_variance(vectors)]
        return condition._replace(pooled=jnp.concatenate(both, axis=1))

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        text, condition = conditioning.init(rng_text, batch)
        condition = with_caption_embedding(condition, jnp.zeros((1, embedder.channels)))
        example = jnp.zeros((1, *latents.shape))
        return {"text": text, "net": net.init(rng_net, example, jnp.zeros(1), condition)["params"]}

    def encode_text(params, frozen, text, keys=None):
        condition = conditioning.encode(params["text"], frozen, text, keys)
        return with_caption_embedding(condition, embedder.text(frozen["first_stage"], text))

    def predict(params, x_t, t, condition, keys=None):
        return net.apply({"params": params["net"]}, x_t, t, condition, keys)

    schedule, times = make_schedule(section["schedule"]), diffusion.make_draw_times(section)
    kind = section["parameterization"]
    return Denoiser(init, encode_text, predict, schedule, kind, times, latents)


def latents_of(embedder: Embedder) -> Latents:
    """Return embeddings as latents [1, 1, C] of unit variance; decoded, they are unit vectors."""
    return Latents(
        shape=(1, 1, embedder.channels),
        encode=lambda arrays, image: unit_variance(embedder.image(arrays, image))[:, None, None],
        decode=lambda arrays, x: unit_length(x[:, 0, 0]),
        fit=lambda source, read_run: embedder.copy(read_run),
    )
