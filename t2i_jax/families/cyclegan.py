"""CycleGAN: translation between two sets of pictures without pairs (arXiv 1703.10593).

One generator translates pictures of the first set ("image") to the second ("image_b"), another one
translates back. A discriminator for each set judges the results, by least squares. A picture
translated there and back must equal the original (cycle consistency). Text does not condition it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from t2i_jax.adversarial.losses import make_losses as make_adversarial
from t2i_jax.adversarial.picture_pool import Pool, exchange, make_pool
from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.core.random import split_keys
from t2i_jax.families.config_fields import network_fields, read_section
from t2i_jax.models import patch_discriminator, resnet_generator
from t2i_jax.models.codebooks import mean_per_example

LEAST_SQUARES = make_adversarial("least_squares")
DIRECTIONS = ("forward", "backward")
FIELDS = {
    "cycle": Field(10.0, "weight of the cycle-consistency loss (equation 2)", 0.0),
    "identity": Field(5.0, "weight of the identity loss (section 5.2); 0: none", 0.0),
    "pool": Field(50, "earlier pictures that each discriminator is shown again; 0: none", 0, 10**5),
}
TRANSLATE_FIELDS = {
    "direction": Field(
        "forward", "from the first set to the second, or backward", choices=DIRECTIONS
    ),
}


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    del config
    model = network_fields(
        resnet_generator.ResNetGenerator, choices={"norm": resnet_generator.NORMS}
    )
    return {
        "model": {**model, "levels": model["levels"]._replace(low=0)},
        "discriminator": network_fields(patch_discriminator.PatchDiscriminator),
        "cyclegan": FIELDS,
        "translate": TRANSLATE_FIELDS,
    }


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, and data.resolution.

    Its players are "model", the generators of both directions, and "discriminator", those of both
    sets. The batch needs "image_b", as the source `unpaired` gives it.
    axis_name: of pmap; its devices share the pools.
    Raises ValueError for an unknown field, and for a resolution that the networks cannot take.
    """
    settings, side = read_section(config, "cyclegan", FIELDS), config.data.resolution
    generator = resnet_generator.ResNetGenerator(**config.model)
    discriminator = patch_discriminator.PatchDiscriminator(**config.discriminator)
    resnet_generator.check(generator.levels, side)
    patch_discriminator.check(discriminator.levels, side)

    def init(rng, batch):
        del batch  # the networks are of any size
        image, keys = jnp.zeros((1, side, side, 3)), jax.random.split(rng, 4)
        generators, judges = (
            {name: net.init(key, image)["params"] for name, key in zip(names, own, strict=True)}
            for net, names, own in (
                (generator, DIRECTIONS, keys[:2]),
                (discriminator, ("first", "second"), keys[2:]),
            )
        )
        pools = {name: make_pool(settings["pool"], side) for name in ("first", "second")}
        return {"model": generators, "discriminator": judges}, {"pool": pools}

    def draw(params, direction: str, x) -> Any:
        return generator.apply({"params": params["model"][direction]}, x)

    def judge(params, which: str, x) -> Any:
        return discriminator.apply({"params": params["discriminator"][which]}, x)

    return Family(
        init=init,
        losses=make_losses(settings, draw, judge, axis_name),
        abilities={"translate": make_translate(draw)},
        settings={"translate": read_section(config, "translate", TRANSLATE_FIELDS)},
        static=("direction",),
        carried=("pool",),
        lower_loss_is_better=False,
    )


def make_translate(draw: Callable) -> Callable:
    """Return the ability `translate`. draw: (params, direction, x) -> the translation of x."""

    def translate(variables: Variables, inputs, keys=None, direction: str = "forward"):
        """Translate inputs["image"], uint8 [B, H, W, 3]."""
        del keys
        return from_unit(draw(variables.params, direction, to_unit(inputs["image"])))

    return translate


def make_losses(
    settings: Mapping[str, Any], draw: Callable, judge: Callable, axis_name: str | None
) -> dict[str, Callable]:
    """Return {player: loss}, in the order of update.

    settings: of FIELDS.
    draw: (params, direction, x) -> the translation of x [B, H, W, 3].
    judge: (params, "first" or "second", x) -> logits [B, h, w].
    """

    def model_loss(params, ctx: Context):
        """Return equation 3 for both generators; the metric "cycle" is equation 2."""
        if "image_b" not in ctx.batch:
            raise ValueError(
                'cyclegan needs a second set of pictures: set data.name to "unpaired", with '
                "data.first and data.second"
            )
        first, second = to_unit(ctx.batch["image"]), to_unit(ctx.batch["image_b"])
        to_second, to_first = draw(params, "forward", first), draw(params, "backward", second)
        fooled = fool(judge(params, "second", to_second)) + fool(judge(params, "first", to_first))
        cycle = absolute(draw(params, "backward", to_second), first)
        cycle += absolute(draw(params, "forward", to_first), second)
        loss = fooled + settings["cycle"] * cycle
        metrics = {"fooled": fooled, "cycle": cycle}
        if settings["identity"]:
            same = absolute(draw(params, "forward", second), second)
            same += absolute(draw(params, "backward", first), first)
            loss, metrics = loss + settings["identity"] * same, {**metrics, "identity": same}
        return loss, (ctx.extra, metrics)

    def discriminator_loss(params, ctx: Context):
        """Return the sum of both discriminators' least-squares losses, each halved (section 7.1).

        In training they see pictures of the pools. The metric "accuracy" is the share of places
        whose logit is nearer to the right target.
        """
        first, second = to_unit(ctx.batch["image"]), to_unit(ctx.batch["image_b"])
        drawn = {
            "first": draw(params, "backward", second),
            "second": draw(params, "forward", first),
        }
        real, pools = {"first": first, "second": second}, dict(ctx.extra["pool"])
        loss = accuracy = jnp.zeros(len(first))
        for (which, fake), keys in zip(drawn.items(), split_keys(ctx.keys, 2), strict=True):
            if ctx.train:
                fake = jax.lax.stop_gradient(fake)
                fake, pools[which] = exchange_on_all(pools[which], fake, keys, axis_name)
            logits, false_logits = judge(params, which, real[which]), judge(params, which, fake)
            found = LEAST_SQUARES.real(logits) + LEAST_SQUARES.fake(false_logits)
            loss += found.mean((1, 2))
            right = jnp.concatenate([logits > 0.5, false_logits < 0.5], 1)
            accuracy += right.mean((1, 2)) / 2
        return loss, ({**ctx.extra, "pool": pools}, {"accuracy": accuracy})

    return {"model": model_loss, "discriminator": discriminator_loss}


def fool(logits: Float[Array, "B h w"]) -> Float[Array, "B"]:
    """Return the generator's mean of (logit - 1)² (section 4)."""
    return 2.0 * LEAST_SQUARES.fool(logits).mean((1, 2))


def absolute(a: Float[Array, "B H W 3"], b: Float[Array, "B H W 3"]) -> Float[Array, "B"]:
    """Return the mean absolute difference of pictures in [-1, 1]: from 0 to 2."""
    return mean_per_example(jnp.abs(a - b))


def exchange_on_all(
    pool: Pool, new: Float[Array, "B H W 3"], keys: Key[Array, "B"], axis_name: str | None
) -> tuple[Float[Array, "B H W 3"], Pool]:
    """Return `exchange` of the global batch, and of its result this device's part.

    All devices thus have the same pool. axis_name: of pmap, or None.
    """
    if axis_name is None:
        return exchange(pool, new, keys)
    data = jax.random.key_data(keys)
    every, data = jax.lax.all_gather((new, data), axis_name, tiled=True)
    shown, pool = exchange(pool, every, jax.random.wrap_key_data(data))
    start = jax.lax.axis_index(axis_name) * len(new)
    return jax.lax.dynamic_slice_in_dim(shown, start, len(new)), pool
