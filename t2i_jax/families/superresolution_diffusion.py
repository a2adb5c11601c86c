"""Super-resolution by diffusion: the detail that a small picture lacks is drawn, not predicted.

A regression (superresolution.py) gives the mean of all details that fit, which is soft; a diffusion
model draws one of them (arXiv 2104.07636). What it draws is the difference between a picture and
the bicubic enlargement of its small version (arXiv 2104.14951, section 3.2), by rectified flow.

In training the small picture gets Gaussian noise of a random level, which the network is told
(conditioning augmentation, arXiv 2106.15282, section 4.2). So it forgives the faults of a small
picture that another model drew. Text does not condition it, as in DALL-E 2 (arXiv 2204.06125,
section 2.1).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.core.random import derive_keys, draw_normal, keys_at, split_keys
from t2i_jax.data.degradation import enlarge
from t2i_jax.diffusion.parameterizations import to_noise, to_x0
from t2i_jax.diffusion.samplers import make_sampler, time_grid
from t2i_jax.diffusion.schedules import logit_normal, rectified
from t2i_jax.families.config_fields import network_fields, read_section
from t2i_jax.families.superresolution import DEGRADATION_FIELDS, check_scale, degrade
from t2i_jax.models.detail_denoiser import DetailDenoiser

SPREAD = 0.2  # about the standard deviation of differences, for pictures in [-1, 1]
KIND = "x0"  # what the network predicts: where a picture is smooth, exactly nothing
SAMPLER = "dpmpp_2m"  # it adds no noise, which would differ from tile to tile
FIELDS = {
    **DEGRADATION_FIELDS,
    "augmentation": Field(
        0.3, "largest noise that small pictures get in training, in units of [-1, 1]", 0.0, 2.0
    ),
}
UPSCALE_FIELDS = {
    "steps": Field(10, "steps of the sampler", 1, 1000),
    "augmentation": Field(
        0.0, "noise that a small picture gets before it is enlarged: hides its faults", 0.0, 2.0
    ),
}


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    del config
    model = network_fields(DetailDenoiser, ("scale",))
    return {"model": model, "superresolution": FIELDS, "upscale": UPSCALE_FIELDS}


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, and data.resolution.

    Raises ValueError for an unknown field, for a resolution that the scale does not divide, and for
    more noise when drawing than in training.
    """
    del axis_name  # nothing here compares examples
    settings, side = read_section(config, "superresolution", FIELDS), config.data.resolution
    drawing = read_section(config, "upscale", UPSCALE_FIELDS)
    check_scale(settings["scale"], side)
    if drawing["augmentation"] > settings["augmentation"]:
        raise ValueError(
            f"upscale.augmentation is {drawing['augmentation']}: it can be at most the "
            f"superresolution.augmentation of training, {settings['augmentation']}"
        )
    net = DetailDenoiser(settings["scale"], **config.model)

    def init(rng, batch):
        del batch  # the network is of any size
        small, high = (jnp.zeros((1, n, n, 3)) for n in (side // settings["scale"], side))
        return {"model": net.init(rng, high, small, jnp.zeros(1), jnp.zeros(1))["params"]}, {}

    return Family(
        init=init,
        losses={"model": make_loss(net, settings)},
        abilities={"upscale": make_upscale(net, settings, drawing)},
        settings={},
    )


def make_loss(net: DetailDenoiser, settings: Mapping[str, Any]) -> Callable:
    """Return the loss of the player "model": the mean squared error of the clean detail.

    All times count alike. With the weight of a velocity, 1 / t^2, training was slower: most of it
    goes to times at which the detail can be seen through the noise.
    """

    def loss(params, ctx: Context):
        small_keys, level_keys, seen_keys, time_keys, noise_keys = split_keys(ctx.keys, 5)
        high = to_unit(ctx.batch["image"])
        small = to_unit(degrade(ctx.batch["image"], small_keys, settings))
        level = settings["augmentation"] * jax.vmap(jax.random.uniform)(level_keys)
        small = small + level[:, None, None, None] * draw_normal(seen_keys, small.shape[1:])
        x0 = (high - enlarge(small, settings["scale"])) / SPREAD
        noise, t = draw_normal(noise_keys, x0.shape[1:]), jax.vmap(logit_normal)(time_keys)
        c = rectified(t[:, None, None, None])
        x_t = c.alpha * x0 + c.sigma * noise
        output: Any = net.apply({"params": params["model"]}, x_t, small, t, level)
        return jnp.square(output - x0).mean((1, 2, 3)), (ctx.extra, {})

    return loss


def make_upscale(
    net: DetailDenoiser, settings: Mapping[str, Any], drawing: Mapping[str, Any]
) -> Callable:
    """Return the ability `upscale`. drawing: the fields UPSCALE_FIELDS."""
    sampler, scale = make_sampler(SAMPLER), settings["scale"]

    def upscale(variables: Variables, inputs, keys=None):
        """Enlarge inputs["image"], uint8 [B, h, w, 3], to uint8 [B, scale h, scale w, 3].

        inputs: also "corner" int [B, 2], where in a larger picture each one begins (row, column).
        keys: without them, all pictures get the same noise.
        """
        small = to_unit(inputs["image"])
        corner = inputs.get("corner", jnp.zeros((len(small), 2), jnp.int32))
        keys = keys_at(0, np.zeros(len(small), int)) if keys is None else keys
        level = jnp.full(len(small), drawing["augmentation"])
        if drawing["augmentation"]:
            seen = placed_noise(derive_keys(keys, 0), corner, (small.shape[1], small.shape[2]))
            small = small + level[:, None, None, None] * seen
        sides = (scale * small.shape[1], scale * small.shape[2])
        noise = placed_noise(derive_keys(keys, 1), scale * corner, sides)

        def predict(x, t):
            times = jnp.full(len(x), t)
            output: Any = net.apply({"params": variables.params["model"]}, x, small, times, level)
            c = rectified(t)
            return to_x0(KIND, output, x, c), to_noise(KIND, output, x, c)

        detail = sampler(predict, noise, time_grid(drawing["steps"]), rectified, None)
        return from_unit(enlarge(small, scale) + SPREAD * detail)

    return upscale


def placed_noise(
    keys: Key[Array, "B"], corner: Int[Array, "B 2"], sides: tuple[int, int]
) -> Float[Array, "B H W 3"]:
    """Return unit noise that depends on the key and the place in the whole picture.

    So tiles of a picture agree where they overlap.
    corner: the row and column at which each picture begins.
    """

    def at(key, row, column):
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, row), column), (3,))

    def one(key, corner):
        rows, columns = (first + jnp.arange(n) for first, n in zip(corner, sides, strict=True))
        return jax.vmap(lambda row: jax.vmap(lambda column: at(key, row, column))(columns))(rows)

    return jax.vmap(one)(keys, corner)
