"""AutoencoderKL in the format of diffusers: its config.json, and the names of its arrays."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from t2i_jax.models.autoencoder_kl import AutoencoderKL, param_shapes
from t2i_jax.weights.derived import renamed
from t2i_jax.weights.diffusers_blocks import (
    ATTENTION,
    block_name,
    check_config,
    is_block,
    parameter,
    residual_layer,
)
from t2i_jax.weights.published import Path, Published, read_params

# As attention was called until 2023.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
SUPPORTED = dict(
    in_channels=3,
    out_channels=3,
    act_fn="silu",
    norm_num_groups=32,
    latents_mean=None,
    latents_std=None,
)


def fields(config: Mapping) -> dict:
    """Return the fields of AutoencoderKL from the config.json of the folder `vae`.

    Raises ValueError, naming the field, for a network that AutoencoderKL does not compute.
    """
    channels = tuple(config.get("block_out_channels", (64,)))
    levels, project = len(channels), config.get("use_quant_conv", True)
    blocks = dict(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        use_post_quant_conv=project,
    )
    check_config(config, SUPPORTED | blocks, "an AutoencoderKL")
    width = math.gcd(*channels)
    return dict(
        latent=config.get("latent_channels", 4),
        width=width,
        multipliers=tuple(c // width for c in channels),
        blocks=config.get("layers_per_block", 1),
        middle_attention=config.get("mid_block_add_attention", True),
        project=project,
        scaling=config.get("scaling_factor", 0.18215),
        shift=config.get("shift_factor") or 0.0,
    )


def config_json(net: AutoencoderKL) -> dict:
    """Return the config.json with which diffusers builds the network: the inverse of `fields`."""
    levels = len(net.multipliers)
    return dict(
        _class_name="AutoencoderKL",
        **SUPPORTED,
        latent_channels=net.latent,
        block_out_channels=[net.width * m for m in net.multipliers],
        layers_per_block=net.blocks,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        mid_block_add_attention=net.middle_attention,
        use_quant_conv=net.project,
        use_post_quant_conv=net.project,
        scaling_factor=net.scaling,
        shift_factor=net.shift or None,
    )


def published(net: AutoencoderKL) -> Callable[[Path], Published]:
    """Return the function from the path of a parameter to its place in the published file."""

    def place(path: Path) -> Published:
        half, *layers, leaf = path
        if layers == ["project"]:
            name = {"encoder": "quant_conv", "decoder": "post_quant_conv"}[half]
            return parameter(name, leaf, "pointwise")
        if layers == ["norm_out"]:
            return parameter(f"{half}.conv_norm_out", leaf, "same")
        if not is_block(path[1:]):
            return parameter(f"{half}.{layers[0]}", leaf, "conv")
        block = f"{half}.{block_name(layers[0], len(net.multipliers))}"
        if len(layers) == 1:  # halves or doubles the sides
            return parameter(block, leaf, "conv")
        if layers[1] == "norm":
            return parameter(f"{block}.group_norm", leaf, "same")
        if layers[1] == "attention":
            return parameter(f"{block}.{ATTENTION[layers[2]]}", leaf, "linear")
        return residual_layer(block, layers[1], leaf)

    return place


def read(
    arrays: Mapping[str, np.ndarray], net: AutoencoderKL, source: str, dtype: Any = None
) -> Any:
    """Return the parameters of `net` from published arrays.

    source, dtype: see `read_params`.

    Older names of attention are read too. Raises ValueError if the arrays do not fit.
    """

    def new_name(name):
        *words, layer, leaf = name.split(".") if name.count(".") else ("", name)
        return ".".join([*words, OLD_ATTENTION.get(layer, layer), leaf]) if words else name

    arrays = renamed(arrays, new_name)
    return read_params(arrays, param_shapes(net), published(net), source, dtype=dtype)
