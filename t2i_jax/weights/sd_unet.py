"""The U-Net of Stable Diffusion in the format of diffusers: its config.json, and its arrays."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from t2i_jax.models.sd_unet import UNet2DConditionModel, param_shapes
from t2i_jax.weights.diffusers_blocks import (
    ATTENTION,
    block_name,
    check_config,
    is_block,
    parameter,
    residual_layer,
)
from t2i_jax.weights.published import Path, Published, read_params

DOWN = {True: "CrossAttnDownBlock2D", False: "DownBlock2D"}  # with attention, and without
UP = {True: "CrossAttnUpBlock2D", False: "UpBlock2D"}
# The only values of these fields that the network computes, which are also their defaults.
# `dropout` is used in training alone, and `upcast_attention` does not matter: our softmax is
# always in float32.
SUPPORTED = dict(
    act_fn="silu",
    addition_embed_type_num_heads=64,
    attention_type="default",
    center_input_sample=False,
    class_embed_type=None,
    class_embeddings_concat=False,
    conv_in_kernel=3,
    conv_out_kernel=3,
    cross_attention_norm=None,
    downsample_padding=1,
    dual_cross_attention=False,
    encoder_hid_dim=None,
    encoder_hid_dim_type=None,
    flip_sin_to_cos=True,
    freq_shift=0,
    mid_block_only_cross_attention=None,
    mid_block_scale_factor=1,
    mid_block_type="UNetMidBlock2DCrossAttn",
    norm_eps=1e-5,
    norm_num_groups=32,
    num_attention_heads=None,
    num_class_embeds=None,
    only_cross_attention=False,
    resnet_out_scale_factor=1.0,
    resnet_skip_time_act=False,
    resnet_time_scale_shift="default",
    reverse_transformer_layers_per_block=None,
    time_cond_proj_dim=None,
    time_embedding_act_fn=None,
    time_embedding_dim=None,
    time_embedding_type="positional",
    timestep_post_act=None,
)
DEFAULTS = dict(
    in_channels=4,
    out_channels=4,
    block_out_channels=(320, 640, 1280, 1280),
    layers_per_block=2,
    down_block_types=(DOWN[True],) * 3 + (DOWN[False],),
    up_block_types=(UP[False],) + (UP[True],) * 3,
    transformer_layers_per_block=1,
    attention_head_dim=8,
    cross_attention_dim=1280,
    use_linear_projection=False,
    addition_embed_type=None,
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=0,
)


def fields(config: Mapping) -> dict:
    """Return the fields of UNet2DConditionModel from the config.json of the folder `unet`.

    `attention_head_dim` of the file is the number of heads, in spite of its name.
    Raises ValueError, naming the field, for a network that UNet2DConditionModel does not compute.
    """
    check_config(config, SUPPORTED, "a UNet2DConditionModel")
    c: dict[str, Any] = {**DEFAULTS, **config}
    levels = len(c["block_out_channels"])
    attention = tuple(kind == DOWN[True] for kind in c["down_block_types"])
    depths = _each(c, "transformer_layers_per_block", levels)
    blocks = dict(
        down_block_types=tuple(DOWN[a] for a in attention),
        up_block_types=tuple(UP[a] for a in reversed(attention)),
        addition_embed_type="text_time" if c["addition_embed_type"] else None,
    )
    check_config(c, blocks, "a UNet2DConditionModel")
    return dict(
        in_channels=c["in_channels"],
        out_channels=c["out_channels"],
        channels=tuple(c["block_out_channels"]),
        blocks=_number(c, "layers_per_block"),
        depths=tuple(d if a else 0 for d, a in zip(depths, attention, strict=True)),
        middle_depth=depths[-1],
        heads=_each(c, "attention_head_dim", levels),
        text_width=_number(c, "cross_attention_dim"),
        added_width=c["projection_class_embeddings_input_dim"] if c["addition_embed_type"] else 0,
        number_width=c["addition_time_embed_dim"] or 256,
        linear_projection=c["use_linear_projection"],
    )


def config_json(net: UNet2DConditionModel) -> dict:
    """Return the config.json with which diffusers builds the network: the inverse of `fields`.

    `sample_size`, the usual side of its latents, is not known here: set it too.
    """
    added = dict(
        addition_embed_type="text_time",
        addition_time_embed_dim=net.number_width,
        projection_class_embeddings_input_dim=net.added_width,
    )
    attention = [depth > 0 for depth in net.depths]
    depths = [max(depth, 1) for depth in net.depths]
    return dict(
        _class_name="UNet2DConditionModel",
        **SUPPORTED,
        in_channels=net.in_channels,
        out_channels=net.out_channels,
        block_out_channels=list(net.channels),
        layers_per_block=net.blocks,
        down_block_types=[DOWN[a] for a in attention],
        up_block_types=[UP[a] for a in reversed(attention)],
        transformer_layers_per_block=[*depths[:-1], net.middle_depth],
        attention_head_dim=list(net.heads),
        cross_attention_dim=net.text_width,
        use_linear_projection=net.linear_projection,
        **(added if net.added_width else {}),
    )


def _number(config, name) -> int:
    if not isinstance(config[name], int):
        raise ValueError(
            f"config.json of a UNet2DConditionModel has {name} = {config[name]!r}; supported is "
            "one number for all levels"
        )
    return config[name]


def _each(config, name, levels) -> tuple[int, ...]:
    """Return one number for each level."""
    value = config[name]
    values = (value,) * levels if isinstance(value, int) else tuple(value)
    if len(values) != levels or not all(isinstance(v, int) for v in values):
        raise ValueError(
            f"config.json of a UNet2DConditionModel has {name} = {value!r}; supported is one "
            f"number, or one for each of its {levels} levels"
        )
    return values


TOP = {
    "time_in": ("time_embedding.linear_1", "linear"),
    "time_out": ("time_embedding.linear_2", "linear"),
    "added_in": ("add_embedding.linear_1", "linear"),
    "added_out": ("add_embedding.linear_2", "linear"),
    "conv_in": ("conv_in", "conv"),
    "norm_out": ("conv_norm_out", "same"),
    "conv_out": ("conv_out", "conv"),
}
TRANSFORMER = {"norm": "norm", "project_in": "proj_in", "project_out": "proj_out"}
TRANSFORMER_BLOCK = {
    "attention_norm": "norm1",
    "cross_attention_norm": "norm2",
    "mlp_norm": "norm3",
    "mlp_in": "ff.net.0.proj",
    "mlp_out": "ff.net.2",
    "attention": "attn1",
    "cross_attention": "attn2",
}


def published(net: UNet2DConditionModel) -> Callable[[Path], Published]:
    """Return the function from the path of a parameter to its place in the published file."""
    projection = "linear" if net.linear_projection else "pointwise"

    def place(path: Path) -> Published:
        first, *layers, leaf = path
        if not is_block(path):
            name, layout = TOP[first]
            return parameter(name, leaf, layout)
        block = block_name(first, len(net.channels))
        if not layers:  # halves or doubles the sides
            return parameter(block, leaf, "conv")
        if not first.endswith("_transformer"):
            return residual_layer(block, layers[0], leaf)
        if len(layers) == 1:
            return parameter(f"{block}.{TRANSFORMER[layers[0]]}", leaf, projection)
        number, layer, *rest = layers
        name = f"transformer_blocks.{number.removeprefix('block_')}.{TRANSFORMER_BLOCK[layer]}"
        name = ".".join([block, name, *(ATTENTION[part] for part in rest)])
        return parameter(name, leaf, "linear")

    return place


def read(
    arrays: Mapping[str, np.ndarray], net: UNet2DConditionModel, source: str, dtype: Any = None
) -> Any:
    """Return the parameters of `net` from published arrays.

    source, dtype: see `read_params`.

    Raises ValueError if the arrays do not fit.
    """
    return read_params(arrays, param_shapes(net), published(net), source, dtype=dtype)
