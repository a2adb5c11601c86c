"""Style in one pass: adaptive instance normalization, with a trained decoder (arXiv 1703.06868).

A frozen network turns content and style into feature maps. The content's map takes the mean and the
deviation of each channel of the style's, and the decoder, which alone is trained, turns it into a
picture. The network is EfficientNet-Lite0 instead of the paper's VGG-19, whose weights are not
among those that `main.py prepare` fetches. Text does not condition the model.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.families.config_fields import network_fields, read_section
from t2i_jax.features import efficientnet_lite0
from t2i_jax.models.efficientnet_lite import EfficientNetLite
from t2i_jax.models.style_decoder import StyleDecoder, adapt, statistics

# Of the maps that the loss compares; map i has 1 / 2^(i + 1) the sides.
CHANNELS = (16, 24, 40, 112)
FIELDS = {
    "layer": Field(1, "the map of EfficientNet-Lite0 that is given the style", 0, 2),
    "style": Field(10.0, "weight of the style loss (lambda of equation 11)", 0.0),
}
STYLIZE_FIELDS = {
    "strength": Field(
        1.0,
        "from the content's own statistics, 0, to those of the style, 1 (equation 14)",
        0.0,
        1.0,
    ),
}


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    del config
    return {
        "model": network_fields(StyleDecoder, ("doublings",)),
        "adain": FIELDS,
        "stylize": STYLIZE_FIELDS,
    }


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, and data.resolution.

    The batch needs "image_b", the styles, as the source `unpaired` gives it. Raises ValueError for
    an unknown field, and for pictures whose map has fewer than 2 x 2 places; FileNotFoundError in
    `make_frozen`, if the weights of EfficientNet-Lite0 are not prepared.
    """
    del axis_name  # nothing here compares examples
    settings, side = read_section(config, "adain", FIELDS), config.data.resolution
    layer = settings["layer"]
    if side < 2 * (cell := 2 ** (layer + 1)) or side % cell:
        raise ValueError(
            f"data.resolution is {side}: it has to be a multiple of {cell} px, a place of map "
            f"{layer} (adain.layer), and at least {2 * cell}"
        )
    decoder = StyleDecoder(doublings=layer + 1, **config.model)

    def init(rng, batch):
        del batch  # the network is of any size
        x = jnp.zeros((1, side // cell, side // cell, CHANNELS[layer]))
        return {"model": decoder.init(rng, x)["params"]}, {}

    def decode(params, x) -> Any:
        return decoder.apply({"params": params["model"]}, x)

    return Family(
        init=init,
        losses={"model": make_loss(settings, encode, decode)},
        abilities={"stylize": make_stylize(layer, encode, decode)},
        settings={"stylize": read_section(config, "stylize", STYLIZE_FIELDS)},
        make_frozen=lambda source, read_run: {"extractor": efficientnet_lite0.make().weights},
    )


def encode(frozen: Mapping[str, Any], x: Float[Array, "B H W 3"]) -> list[Any]:
    """Return the first maps of EfficientNet-Lite0 of pictures in [-1, 1], in their own size."""
    found: Any = EfficientNetLite().apply(frozen["extractor"], (127.5 * x + 0.5) / 128)
    return found["maps"][: len(CHANNELS)]


def make_loss(settings: Mapping[str, Any], encode: Callable, decode: Callable) -> Callable:
    """Return the loss of the decoder.

    settings: of FIELDS.
    encode: (frozen, x) -> maps of pictures.   decode: (params, map) -> pictures.
    """

    def loss(params, ctx: Context):
        """Return equation 11.

        Each distance is relative to its target, since the maps differ in scale.
        """
        if "image_b" not in ctx.batch:
            raise ValueError(
                'adain needs a second set of pictures, the styles: set data.name to "unpaired", '
                "with data.first and data.second"
            )
        content, style = (
            encode(ctx.frozen, to_unit(ctx.batch[name])) for name in ("image", "image_b")
        )
        layer = settings["layer"]
        target = adapt(content[layer], style[layer])
        found = encode(ctx.frozen, decode(params, target))
        of_content = relative_error(found[layer], target)
        each = [
            relative_error(*(jnp.concatenate(statistics(x), -1) for x in pair))
            for pair in zip(found, style, strict=True)
        ]
        of_style = jnp.stack(each).mean(0)
        metrics = {"content": of_content, "style": of_style}
        return of_content + settings["style"] * of_style, (ctx.extra, metrics)

    return loss


def make_stylize(layer: int, encode: Callable, decode: Callable) -> Callable:
    """Return the ability `stylize`. The arguments are those of FIELDS and `make_loss`."""

    def stylize(variables: Variables, inputs, keys=None, *, strength):
        """Draw inputs["image"], uint8 [B, H, W, 3], in the styles of "image_b" of any size.

        strength: see STYLIZE_FIELDS.
        """
        del keys
        height, width = inputs["image"].shape[1:3]
        cell = 2 ** (layer + 1)
        edges = [(0, max(-side % cell, 2 * cell - side)) for side in (height, width)]
        padded = jnp.pad(inputs["image"], ((0, 0), *edges, (0, 0)), mode="edge")
        content, style = (
            encode(variables.frozen, to_unit(x))[layer] for x in (padded, inputs["image_b"])
        )
        mixed = strength * adapt(content, style) + (1 - strength) * content
        return from_unit(decode(variables.params, mixed)[:, :height, :width])

    return stylize


def relative_error(
    x: Float[Array, "B h w C"], target: Float[Array, "B h w C"]
) -> Float[Array, "B"]:
    """Return the squared distance of each example from its target, over the target's square."""
    squares = (jnp.square(y).sum((1, 2, 3)) for y in (x - target, target))
    error, scale = squares
    return error / jnp.maximum(scale, 1e-6)
