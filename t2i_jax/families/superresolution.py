"""Super-resolution: a network that enlarges pictures (EDSR, arXiv 1707.02921).

It learns from pictures that are made small (`degrade`), by the mean absolute difference of pixels.
With `superresolution.adversarial`, a discriminator judges details as well, by the relativistic loss
(arXiv 1807.00734; 1809.00219, section 3.2): sharper pictures, of a lower PSNR. Text does not
condition it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from t2i_jax.adversarial import losses as adversarial
from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.core.random import split_keys
from t2i_jax.core.types import AnyArray
from t2i_jax.data.degradation import blur, shrink
from t2i_jax.families.config_fields import network_fields, read_section
from t2i_jax.families.vae import add_noise
from t2i_jax.models import patch_discriminator
from t2i_jax.models.codebooks import mean_per_example
from t2i_jax.models.edsr import EDSR, FACTORS
from t2i_jax.models.residual_dense import ResidualDense

RELATIVISTIC = adversarial.make_losses("relativistic")
NETWORKS = {"edsr": EDSR, "residual_dense": ResidualDense}
NETWORK_FIELD = Field("edsr", "the network: a file of models/", choices=tuple(NETWORKS))
DEGRADATION_FIELDS = {
    "scale": Field(2, "how many times as large the sides become", choices=tuple(FACTORS)),
    "blur": Field(
        0.0, "largest standard deviation of a blur before pictures are made small, in px", 0.0, 16.0
    ),
    "noise": Field(0.0, "largest noise on small pictures, in levels of 255", 0.0, 255.0),
}
FIELDS = {
    **DEGRADATION_FIELDS,
    "adversarial": Field(0.0, "weight of the discriminator's judgement", 0.0),
}


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    name = config.get("model", {}).get("network", NETWORK_FIELD.default)
    own = network_fields(NETWORKS.get(name, EDSR), ("scale",))
    found = {"model": {"network": NETWORK_FIELD, **own}, "superresolution": FIELDS}
    if config.get("superresolution", {}).get("adversarial", 0.0) > 0:
        found["discriminator"] = network_fields(patch_discriminator.PatchDiscriminator)
    return found


def check_scale(scale: int, side: int) -> None:
    """Raise ValueError if pictures of `side` pixels cannot be made `scale` times smaller."""
    if side % scale:
        raise ValueError(
            f"superresolution.scale is {scale}: it has to divide data.resolution, which is {side}"
        )


def degrade(
    image: UInt8[AnyArray, "B H W 3"], keys: Key[Array, "B"], settings: Mapping[str, Any]
) -> UInt8[Array, "B h w 3"]:
    """Return pictures made small: blurred, shrunk, and noisy.

    settings: of DEGRADATION_FIELDS. Without blur and noise, the keys change nothing.
    """
    blur_keys, noise_keys = split_keys(keys, 2)
    x = to_unit(image)
    if settings["blur"]:
        x = blur(x, blur_keys, settings["blur"])
    x = shrink(x, settings["scale"])
    if settings["noise"]:
        x = add_noise(x, noise_keys, settings["noise"])
    return from_unit(x)


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, and data.resolution.

    With superresolution.adversarial the player "model" is followed by "discriminator". Raises
    ValueError for an unknown field, and for a resolution that the scale does not divide.
    """
    del axis_name  # nothing here compares examples
    settings, side = read_section(config, "superresolution", FIELDS), config.data.resolution
    check_scale(settings["scale"], side)
    net, discriminator = make_network(config.model, settings["scale"]), None
    if settings["adversarial"] > 0:
        discriminator = patch_discriminator.PatchDiscriminator(**config.get("discriminator", {}))
        patch_discriminator.check(discriminator.levels, side)

    def init(rng, batch):
        del batch  # the networks are of any size
        low, high = (jnp.zeros((1, n, n, 3)) for n in (side // settings["scale"], side))
        players = {"model": net.init(jax.random.fold_in(rng, 0), low)["params"]}
        if discriminator:
            own = discriminator.init(jax.random.fold_in(rng, 1), high)["params"]
            players["discriminator"] = own
        return players, {}

    return Family(
        init=init,
        losses=make_losses(settings, net, discriminator),
        abilities={"upscale": make_upscale(net)},
        settings={},
        lower_loss_is_better=discriminator is None,
    )


def make_network(config: Mapping[str, Any], scale: int) -> Any:
    """Return the network of `config.model` for one scale."""
    values = dict(config)
    return NETWORKS[values.pop("network", NETWORK_FIELD.default)](scale, **values)


def make_upscale(net: Any) -> Callable:
    """Return the ability `upscale` of a network."""

    def upscale(variables: Variables, inputs, keys=None):
        """Enlarge inputs["image"], uint8 [B, h, w, 3], to uint8 [B, scale h, scale w, 3]."""
        del keys
        params = {"params": variables.params["model"]}
        found: Any = net.apply(params, to_unit(inputs["image"]))
        return from_unit(found)

    return upscale


def make_losses(settings: Mapping[str, Any], net: Any, discriminator: Any) -> dict[str, Callable]:
    """Return {player: loss}, in the order of update; `discriminator` is a network or None."""

    def enlarged(params, ctx: Context) -> Float[Array, "B H W 3"]:
        low = degrade(ctx.batch["image"], ctx.keys, settings)
        return net.apply({"params": params["model"]}, to_unit(low))

    def judge(params, x) -> Any:
        return discriminator.apply({"params": params["discriminator"]}, x)

    def model_loss(params, ctx: Context):
        """Return the mean absolute difference of pixels, in [0, 2].

        In training with a discriminator, add how little more real than the true picture it finds
        the enlarged one.
        """
        x, y = to_unit(ctx.batch["image"]), enlarged(params, ctx)
        l1 = mean_per_example(jnp.abs(y - x))
        metrics = {"l1": l1, "l2": mean_per_example(jnp.square(y - x))}
        if not (discriminator and ctx.train):
            return l1, (ctx.extra, metrics)
        fooled = RELATIVISTIC.fool(judge(params, y) - judge(params, x)).mean((1, 2))
        return l1 + settings["adversarial"] * fooled, (ctx.extra, metrics)

    def discriminator_loss(params, ctx: Context):
        """Return the loss of finding true pictures more real than enlarged ones.

        The metric `accuracy` says how often a picture's mean logit is above that of its imitation.
        """
        real = judge(params, to_unit(ctx.batch["image"]))
        fake = judge(params, enlarged(params, ctx))
        accuracy = real.mean((1, 2)) > fake.mean((1, 2))
        return RELATIVISTIC.real(real - fake).mean((1, 2)), (ctx.extra, {"accuracy": accuracy})

    losses = {"model": model_loss}
    return {**losses, "discriminator": discriminator_loss} if discriminator else losses
