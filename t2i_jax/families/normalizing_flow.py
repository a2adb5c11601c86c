"""Normalizing flow: an invertible network between pictures and latent numbers, and its likelihood.

The likelihood of a picture is the density of its latent numbers times the change of volume (arXiv
1605.08803, equation 2). Pictures have 256 levels: uniform noise makes them continuous, which bounds
the likelihood of the levels from below (arXiv 1511.01844, section 3.1).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.pictures import to_channels, to_rgb
from t2i_jax.core.random import split_keys
from t2i_jax.core.types import AnyArray
from t2i_jax.families import latent_abilities
from t2i_jax.families.conditioning import Conditioning, make_conditioning
from t2i_jax.families.config_fields import network_fields, read_section
from t2i_jax.models.coupling_flow import CouplingFlow, check
from t2i_jax.models.likelihoods import gaussian

LEVELS = 256  # of a pixel
FLOW_FIELDS = {
    "margin": Field(1e-6, "keeps pixels off 0 and 1, where their logit is infinite", 1e-6, 0.49)
}
SAMPLE_FIELDS = {"temperature": Field(1.0, "standard deviation of the latent numbers", 0.0)}


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    return {
        "model": network_fields(CouplingFlow),
        "normalizing_flow": FLOW_FIELDS,
        "sample": SAMPLE_FIELDS,
    }


def dequantize(
    image: UInt8[AnyArray, "B H W 3"], channels: int, keys: Key[Array, "B"] | None
) -> Float[Array, "B H W {channels}"]:
    """Return pictures as numbers in [0, 256): a uniform draw from each pixel's level.

    Without keys, it is the middle of the level.
    """
    levels = jnp.asarray(to_channels(jnp.asarray(image).astype(jnp.float32), channels))
    if keys is None:
        return levels + 0.5
    return levels + jax.vmap(lambda key: jax.random.uniform(key, levels.shape[1:]))(keys)


def to_logits(
    x: Float[Array, "B H W C"], margin: float
) -> tuple[Float[Array, "B H W C"], Float[Array, "B"]]:
    """Return the logits of pixels in [0, 256], and log |det| of their Jacobian.

    margin: 0 and 256 become this probability and 1 minus it (arXiv 1705.07057, appendix E).
    """
    p = margin + (1 - 2 * margin) * x / LEVELS
    log_p, log_q = jnp.log(p), jnp.log1p(-p)
    log_slope = math.log((1 - 2 * margin) / LEVELS) - log_p - log_q
    return log_p - log_q, log_slope.sum(axis=(1, 2, 3))


def to_picture(logits: Float[Array, "B H W C"], margin: float) -> UInt8[Array, "B H W 3"]:
    """Return the levels in which the pixels of these logits are."""
    x = LEVELS * (jax.nn.sigmoid(logits) - margin) / (1 - 2 * margin)
    return to_rgb(jnp.clip(jnp.floor(x), 0, LEVELS - 1)).astype(jnp.uint8)


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, data.resolution and text.

    Raises ValueError for an unknown field, or a resolution that the network cannot halve.
    """
    del axis_name  # nothing here compares examples
    conditioning = make_conditioning(config)
    margin = read_section(config, "normalizing_flow", FLOW_FIELDS)["margin"]
    net = CouplingFlow(config.data.resolution, **config.model)
    check(net.side, net.levels)
    dimensions = net.side**2 * net.channels

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        text, condition = conditioning.init(rng_text, batch)
        x = jnp.zeros((1, net.side, net.side, net.channels))
        return {"model": {"text": text, "net": net.init(rng_net, x, condition)["params"]}}, {}

    def to_latent(model, image, condition, keys):
        """Return the latent numbers [B, D] of pictures, and log |det| [B] of their Jacobian."""
        logits, first = to_logits(dequantize(image, net.channels, keys), margin)
        found: Any = net.apply({"params": model["net"]}, logits, condition)
        z, second = found
        return z, first + second

    def loss(params, ctx: Context):
        """Return the negative log-likelihood of each picture in nats."""
        model = params["model"]
        drop_keys, dropout_keys, noise_keys = split_keys(ctx.keys, 3)
        text = conditioning.training_text(ctx, drop_keys)
        keys = dropout_keys if ctx.train else None
        condition = conditioning.encode(model["text"], ctx.frozen, text, keys)
        z, log_det = to_latent(model, ctx.batch["image"], condition, noise_keys)
        nats = -gaussian(z, 0.0, 0.0).sum(axis=1) - log_det
        return nats, (ctx.extra, {"bits_per_dimension": nats / (dimensions * math.log(2))})

    return Family(
        init=init,
        losses={"model": loss},
        abilities=make_abilities(net, conditioning, to_latent, margin),
        settings={
            "sample": read_section(config, "sample", SAMPLE_FIELDS),
            "interpolate": latent_abilities.INTERPOLATE,
        },
        static=("steps",),
        pretrained=conditioning.pretrained,
    )


def make_abilities(
    net: CouplingFlow, conditioning: Conditioning, to_latent: Callable, margin: float
) -> dict[str, Callable]:
    """Return the abilities. Inputs may have "text"; without it, the null text conditions them.

    to_latent: (model, image, condition, keys) -> (latent numbers [B, D], log |det| [B]).
    """

    def encode_text(variables: Variables, inputs, count: int):
        text = conditioning.of_inputs(inputs, variables.frozen, count)
        return conditioning.encode(variables.params["model"]["text"], variables.frozen, text)

    def encode(variables: Variables, inputs, keys=None):
        """Encode inputs["image"], uint8, to latent numbers float [B, D].

        They are those of the middle of each level or, with keys [B], of a draw from it.
        """
        image = inputs["image"]
        condition = encode_text(variables, inputs, len(image))
        return to_latent(variables.params["model"], image, condition, keys)[0]

    def decode(variables: Variables, inputs, keys=None):
        """Decode inputs["latent"], float [B, D], to pictures uint8 [B, H, W, 3]."""
        z, params = inputs["latent"], {"params": variables.params["model"]["net"]}
        condition = encode_text(variables, inputs, len(z))
        logits: Any = net.apply(params, z, condition, method="inverse")
        return to_picture(logits, margin)

    return latent_abilities.make_abilities(net.side**2 * net.channels, encode, decode)
