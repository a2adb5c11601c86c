"""Stable Diffusion 3's transformer in the format of diffusers: config.json, names of arrays."""

from collections.abc import Mapping

from t2i_jax.models.sd3_transformer import SD3Transformer
from t2i_jax.weights import mmdit
from t2i_jax.weights.config_json import read_fields
from t2i_jax.weights.published import Path, Published

_SIZES = {
    "depth": ("num_layers", 18),
    "heads": ("num_attention_heads", 18),
    "head_dim": ("attention_head_dim", 64),
    "patch": ("patch_size", 2),
    "max_grid": ("pos_embed_max_size", 96),
}
# Sizes of the inputs, which our layers take from their first input
_INPUTS = ("in_channels", "joint_attention_dim", "pooled_projection_dim")
_CHECKED = (
    "sample_size",
    "dual_attention_layers",
    "qk_norm",
    "out_channels",
    "caption_projection_dim",
)
_OUTSIDE = mmdit.OUTSIDE | {"patch_in": "pos_embed.proj"}
_BLOCKS = {"block": ("transformer_blocks", mmdit.JOINT_BLOCK)}


def fields(config: Mapping) -> dict:
    """Return the fields of `t2i_jax.models.sd3_transformer.SD3Transformer` from a config.json.

    Raises ValueError for an architecture that SD3Transformer does not compute.
    """
    ours = read_fields(config, _SIZES, {}, (*_INPUTS, *_CHECKED))
    width, channels = ours["heads"] * ours["head_dim"], config.get("in_channels", 16)
    computed = {
        "qk_norm": (None, "rms_norm"),
        "out_channels": (None, channels),
        "caption_projection_dim": (width,),
    }
    for name, values in computed.items():
        default = {"out_channels": 16, "caption_projection_dim": 1152}.get(name)
        if (value := config.get(name, default)) not in values:
            raise ValueError(
                f"config.json has {name} {value!r}; supported is {' or '.join(map(repr, values))}"
            )
    if not ours["max_grid"]:
        raise ValueError("config.json has no pos_embed_max_size; a table of positions is supported")
    return {
        **ours,
        "qk_norm": config.get("qk_norm") is not None,
        "dual": tuple(config.get("dual_attention_layers") or ()),
        "grid": config.get("sample_size", 128) // ours["patch"],
    }


def config_json(net: SD3Transformer, channels: int, text: int, pooled: int) -> dict:
    """Return the config.json with which diffusers builds the network: the inverse of `fields`.

    channels: of the latents. text, pooled: of the vectors of the text.
    """
    return dict(
        _class_name="SD3Transformer2DModel",
        sample_size=net.grid * net.patch,
        patch_size=net.patch,
        in_channels=channels,
        out_channels=channels,
        num_layers=net.depth,
        attention_head_dim=net.head_dim,
        num_attention_heads=net.heads,
        joint_attention_dim=text,
        caption_projection_dim=net.heads * net.head_dim,
        pooled_projection_dim=pooled,
        pos_embed_max_size=net.max_grid,
        qk_norm="rms_norm" if net.qk_norm else None,
        dual_attention_layers=list(net.dual),
    )


def published(path: Path) -> Published:
    """Return where a parameter of SD3Transformer is in a published SD3Transformer2DModel."""
    if path == ("positions",):
        return Published("pos_embed.pos_embed", "same")
    if path == ("patch_in", "kernel"):
        return Published("pos_embed.proj.weight", "conv")
    return mmdit.published_layer(path, _OUTSIDE, _BLOCKS)
