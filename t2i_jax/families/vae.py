"""Variational autoencoders: a code for each picture, and pictures from codes (arXiv 1312.6114).

`config.vae` makes the variants: beta-VAE (`beta`, openreview.net/forum?id=Sy2fzU9gl), KL warm-up
(arXiv 1602.02282), free bits (arXiv 1606.04934) and the denoising VAE (`denoise`, arXiv
1511.06406). `config.text.encoder` makes it conditional.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.pictures import from_unit, to_channels, to_rgb, to_unit
from t2i_jax.core.random import draw_normal, split_keys
from t2i_jax.core.types import AnyArray
from t2i_jax.families import latent_abilities
from t2i_jax.families.conditioning import make_conditioning
from t2i_jax.families.config_fields import network_fields, read_section
from t2i_jax.models import likelihoods
from t2i_jax.models.vae import NETS, SCALES, Decoder, Encoder, check

VAE_FIELDS = {
    "beta": Field(1.0, "weight of the KL divergence from the prior", 0.0),
    "warmup": Field(0, "steps over which that weight rises to `beta`", 0),
    "free_bits": Field(0.0, "nats of each unit of the code that cost nothing", 0.0),
    "denoise": Field(0.0, "largest noise on the encoder's pictures, in levels of 255", 0.0),
}
SAMPLE_FIELDS = {
    "temperature": Field(1.0, "standard deviation of the codes drawn from the prior", 0.0)
}
LATENT_FIELD = Field(16, "numbers of a code", 1)
CHOICES = {"net": NETS, "scale": SCALES, "likelihood": tuple(likelihoods.LIKELIHOODS)}
# A unit of the code is active if its KL, a mean over a batch, is more.
MIN_KL_NATS = 0.01


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    return {
        "model": {"latent": LATENT_FIELD, **network_fields(Decoder, choices=CHOICES)},
        "vae": VAE_FIELDS,
        "sample": SAMPLE_FIELDS,
    }


def kl_from_prior(mean: Float[Array, "B Z"], log_var: Float[Array, "B Z"]) -> Float[Array, "B Z"]:
    """Return KL(N(mean, exp(log_var)) || N(0, 1)) of each unit, in nats.

    Source: arXiv 1312.6114, appendix B.
    """
    return 0.5 * (jnp.exp(log_var) + mean**2 - 1.0 - log_var)


def draw_code(
    mean: Float[Array, "B Z"], log_var: Float[Array, "B Z"], keys: Key[Array, "B"]
) -> Float[Array, "B Z"]:
    """Draw z from N(mean, exp(log_var)), differentiable in both (arXiv 1312.6114, section 2.4)."""
    noise = draw_normal(keys, mean.shape[1:])
    return mean + jnp.exp(0.5 * log_var) * noise


def kl_weight(step, beta: float, warmup: int):
    """Return the weight of the KL: it rises linearly to `beta` over `warmup` steps.

    It is more than 0 at the first step already.
    """
    return beta * jnp.minimum((step + 1) / (warmup + 1), 1.0)


def with_free_bits(
    kl: Float[Array, "B Z"], mean_kl: Float[Array, "Z"], free: float
) -> Float[Array, "B Z"]:
    """Return `kl` for each unit whose mean over the batch is at least `free` nats, else `free`.

    The mean over the batch is then max(free, mean_kl), and so is its gradient (arXiv 1606.04934,
    equation 15, with one unit per group).
    """
    return jnp.where(mean_kl >= free, kl, free)


def add_noise(
    x: Float[AnyArray, "B H W C"], keys: Key[Array, "B"], largest: float
) -> Float[Array, "B H W C"]:
    """Add Gaussian noise to pictures in [-1, 1], and clip.

    largest: each picture's standard deviation is drawn uniformly from 0 to this, in levels of 255.
    """

    def one(x, key):
        level, noise = jax.random.split(key)
        sigma = jax.random.uniform(level, maxval=largest / 127.5)
        return jnp.clip(x + sigma * jax.random.normal(noise, x.shape), -1.0, 1.0)

    return jax.vmap(one)(x, keys)


def make_networks(config, resolution: int) -> tuple[Encoder, Decoder]:
    """Return the two networks of `config.model`: `latent` and the fields of Decoder.

    Raises ValueError for an unknown net, or a resolution that it cannot draw.
    """
    values = dict(config)
    latent = values.pop("latent", LATENT_FIELD.default)
    decoder = Decoder(resolution, **values)
    check(decoder.net, decoder.multipliers, resolution)
    decoder_only = ("channels", "likelihood", "scale", "log_scale")
    shared = {name: value for name, value in values.items() if name not in decoder_only}
    return Encoder(latent, **shared), decoder


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, data.resolution and text.

    Raises ValueError for an unknown field or likelihood, and as `make_networks` does.
    """
    settings, conditioning = read_section(config, "vae", VAE_FIELDS), make_conditioning(config)
    encoder, decoder = make_networks(config.model, config.data.resolution)
    likelihood = likelihoods.load(decoder.likelihood)

    def init(rng, batch):
        rng_text, rng_encoder, rng_decoder = jax.random.split(rng, 3)
        text, condition = conditioning.init(rng_text, batch)
        x = jnp.zeros((1, decoder.resolution, decoder.resolution, decoder.channels))
        z = jnp.zeros((1, encoder.latent))
        networks = {
            "encoder": encoder.init(rng_encoder, x, condition)["params"],
            "decoder": decoder.init(rng_decoder, z, condition)["params"],
        }
        return {"model": {"text": text, **networks}}, {}

    def posterior(model, x, condition) -> Any:
        return encoder.apply({"params": model["encoder"]}, x, condition)

    def decode(model, z, condition) -> Any:
        return decoder.apply({"params": model["decoder"]}, z, condition)

    def loss(params, ctx: Context):
        """Return the negative evidence lower bound of each picture in nats.

        Its KL is weighted by `kl_weight` and has free bits. The metrics have neither:
        reconstruction and kl in nats, their sum as bits_per_dimension, and active_units.
        """
        model, beta = params["model"], settings["beta"]
        drop_keys, dropout_keys, noise_keys, code_keys = split_keys(ctx.keys, 4)
        text = conditioning.training_text(ctx, drop_keys)
        weight = kl_weight(ctx.step, beta, settings["warmup"]) if ctx.train else beta
        keys = dropout_keys if ctx.train else None
        condition = conditioning.encode(model["text"], ctx.frozen, text, keys)
        x = to_channels(to_unit(ctx.batch["image"]), decoder.channels)
        noisy = add_noise(x, noise_keys, settings["denoise"]) if settings["denoise"] else x
        mean, log_var = posterior(model, noisy, condition)
        pixels = decode(model, draw_code(mean, log_var, code_keys), condition)
        reconstruction = -jnp.sum(likelihood.log_prob(x, *pixels), axis=(1, 2, 3))
        kl = kl_from_prior(mean, log_var)
        mean_kl = kl.mean(0) if axis_name is None else jax.lax.pmean(kl.mean(0), axis_name)
        total = kl.sum(1)
        bound, active = reconstruction + total, jnp.sum(mean_kl > MIN_KL_NATS, dtype=jnp.float32)
        metrics = {
            "reconstruction": reconstruction,
            "kl": total,
            "bits_per_dimension": likelihoods.bits_per_dimension(likelihood, bound, x[0].size),
            "active_units": jnp.full(total.shape, active),
        }
        kl_cost = with_free_bits(kl, mean_kl, settings["free_bits"]).sum(1)
        return reconstruction + weight * kl_cost, (ctx.extra, metrics)

    def encode_text(variables: Variables, inputs, count: int):
        text = conditioning.of_inputs(inputs, variables.frozen, count)
        return conditioning.encode(variables.params["model"]["text"], variables.frozen, text)

    def posterior_of(variables: Variables, image, condition):
        x = to_channels(to_unit(image), decoder.channels)
        return posterior(variables.params["model"], x, condition)

    def draw(variables: Variables, z, condition):
        pixels = decode(variables.params["model"], z, condition)
        return from_unit(to_rgb(likelihood.picture(pixels.location)))

    return Family(
        init=init,
        losses={"model": loss},
        abilities=make_abilities(encoder.latent, encode_text, posterior_of, draw),
        settings={
            "sample": read_section(config, "sample", SAMPLE_FIELDS),
            "interpolate": latent_abilities.INTERPOLATE,
        },
        static=("steps",),
        pretrained=conditioning.pretrained,
    )


def make_abilities(
    latent: int, encode_text: Callable, posterior: Callable, draw: Callable
) -> dict[str, Callable]:
    """Return the abilities of a model whose codes are `latent` numbers.

    Their inputs may have "text"; without it, all captions are empty.
    encode_text: (variables, inputs, count) -> the condition of `count` examples, of any type.
    posterior: (variables, pictures uint8, condition) -> (mean, log_var), each [B, Z].
    draw: (variables, z [B, Z], condition) -> uint8 [B, H, W, 3].
    """

    def encode(variables: Variables, inputs, keys=None):
        """Encode inputs["image"], uint8, to codes float [B, Z].

        They are the posterior's mean or, with keys [B], draws from it.
        """
        image = inputs["image"]
        condition = encode_text(variables, inputs, len(image))
        mean, log_var = posterior(variables, image, condition)
        return mean if keys is None else draw_code(mean, log_var, keys)

    def decode(variables: Variables, inputs, keys=None):
        """Decode inputs["latent"], float [B, Z], to pictures uint8 [B, H, W, 3]."""
        z = inputs["latent"]
        return draw(variables, z, encode_text(variables, inputs, len(z)))

    return latent_abilities.make_abilities(latent, encode, decode)
