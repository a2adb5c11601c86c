"""A first stage for whole pictures: principal components of small pictures, enlarged by a network.

Pictures are made smaller and described by their principal components (models/eigenpictures.py).
What these give back is soft and grainy. A network that is trained here makes it large, clean and
sharp again: EDSR, by the mean absolute difference of pixels. A second model draws the components
(`first_stage.run` of family diffusion). Text does not condition this one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.first_stage import Latents
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.data.degradation import shrink
from t2i_jax.families.config_fields import network_fields, read_section
from t2i_jax.families.first_stage import EIGENPICTURES_FIELDS, make_frozen, some_pictures
from t2i_jax.models import eigenpictures
from t2i_jax.models.codebooks import mean_per_example
from t2i_jax.models.edsr import EDSR, FACTORS

FIELDS = {
    **EIGENPICTURES_FIELDS,
    "scale": Field(2, "how much smaller the described pictures are", choices=tuple(FACTORS)),
    "noise": Field(
        0.0, "largest standard deviation of noise on the components in training", 0.0, 10.0
    ),
}
FIT_BATCH = 512  # pictures made smaller at once


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    del config
    return {"model": network_fields(EDSR, ("scale",)), "eigenpictures": FIELDS}


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, and data.resolution.

    Raises ValueError for an unknown field, and for a resolution that the scale does not divide.
    """
    del axis_name  # nothing here compares examples
    latents, draw, net = _parts(config)
    side = config.data.resolution // _settings(config)["scale"]

    def init(rng, batch):
        del batch  # the network is of any size
        return {"model": net.init(rng, jnp.zeros((1, side, side, 3)))["params"]}, {}

    return Family(
        init=init,
        losses={"model": make_loss(latents, draw, _settings(config)["noise"])},
        abilities=make_abilities(latents),
        settings={"sample": {}},
        make_frozen=make_frozen(latents),
        frozen_depends_on=("eigenpictures",),
    )


def make_abilities(latents: Latents) -> dict[str, Callable]:
    """Return the abilities of this family."""

    def encode(variables: Variables, inputs, keys=None):
        """Encode inputs["image"], uint8, to latents float [B, 1, 1, components]."""
        return latents.encode(stage_of(variables), inputs["image"])

    def decode(variables: Variables, inputs, keys=None):
        """Decode inputs["latent"] to uint8 [B, R, R, 3]."""
        return latents.decode(stage_of(variables), inputs["latent"])

    def reconstruct(variables: Variables, inputs, keys=None):
        """Encode and decode: the best that a model of these latents can draw."""
        return decode(variables, {"latent": encode(variables, inputs)})

    return {"encode": encode, "decode": decode, "reconstruct": reconstruct}


def make_loss(latents: Latents, draw: Callable, noise: float) -> Callable:
    """Return the loss of the player "model": the mean absolute difference of pixels, in [0, 2].

    noise: in training, the components of each picture get normal noise, of a standard deviation
        that is drawn uniformly from 0 to this: a model that draws them makes mistakes too.
    """

    def loss(params, ctx: Context):
        frozen, x = ctx.frozen["first_stage"], to_unit(ctx.batch["image"])
        z = latents.encode(frozen, ctx.batch["image"])
        if ctx.train and noise:
            z = z + some_noise(ctx.keys, z.shape[1:], noise)
        y = draw(params["model"], frozen, z)
        l1 = mean_per_example(jnp.abs(y - x))
        return l1, (ctx.extra, {"l1": l1, "l2": mean_per_example(jnp.square(y - x))})

    return loss


def some_noise(
    keys: Key[Array, "B"], shape: tuple[int, ...], largest: float
) -> Float[Array, "B *shape"]:
    """Return normal noise; the deviation of each example is drawn uniformly from 0 to `largest`."""

    def of_example(key):
        deviation = jax.random.uniform(jax.random.fold_in(key, 0), maxval=largest)
        return deviation * jax.random.normal(jax.random.fold_in(key, 1), shape)

    return jax.vmap(of_example)(keys)


def make_latents(config) -> Latents:
    """Return the latents of a run of this family whose config is `config`.

    Here `fit` takes (Variables of that run, source).
    """

    def fit(variables: Variables, source):
        return jax.tree.map(np.asarray, stage_of(variables))

    return _parts(config)[0]._replace(fit=fit)


def half_whitened(deviation: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
    """Return what components of these standard deviations are divided by.

    The variance of a component is then proportional to `deviation`, and 1 in the mean. Divided by
    `deviation`, all components would count alike: all pictures are equally far from one another
    then, and a model that draws them learns slowly. Not divided, details would be lost in noise.
    """
    return np.sqrt(deviation * deviation.mean())


def stage_of(variables: Variables) -> dict:
    """Return what the latents of a run need of its variables."""
    return {"params": variables.params["model"], **variables.frozen["first_stage"]}


def _settings(config) -> dict[str, Any]:
    return read_section(config, "eigenpictures", FIELDS)


def _parts(config) -> tuple[Latents, Callable, EDSR]:
    """Return (latents, (params, arrays, z) -> pictures in about [-1, 1], the network).

    The frozen arrays of the latents are those of `eigenpictures.fit`, and to decode also "params".
    Raises ValueError for a resolution that the scale does not divide.
    """
    settings, side = _settings(config), config.data.resolution
    scale = settings["scale"]
    if side % scale:
        raise ValueError(
            f"eigenpictures.scale is {scale}: it has to divide data.resolution, which is {side}"
        )
    net = EDSR(scale, **config.model)

    def fit(source, read_run):
        pictures = some_pictures(source, settings["fit_pictures"], config.seed)
        parts = np.array_split(pictures, -(-len(pictures) // FIT_BATCH))
        small = [np.asarray(from_unit(shrink(to_unit(part), scale))) for part in parts]
        arrays = eigenpictures.fit(np.concatenate(small), settings["components"])
        return {**arrays, "deviation": half_whitened(arrays["deviation"])}

    def encode(frozen, image):
        return eigenpictures.encode(frozen, shrink(to_unit(image), scale))

    def draw(params, frozen, z) -> Any:
        small = eigenpictures.decode(frozen, z, (side // scale, side // scale, 3))
        return net.apply({"params": params}, small)

    def decode(frozen, z):
        return from_unit(draw(frozen["params"], frozen, z))

    return Latents((1, 1, settings["components"]), encode, decode, fit), draw, net
