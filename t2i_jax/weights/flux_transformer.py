"""FLUX.1's transformer in the format of diffusers: config.json, names of arrays."""

from collections.abc import Mapping

from t2i_jax.models.flux_transformer import PATCH, FluxTransformer
from t2i_jax.weights import mmdit
from t2i_jax.weights.config_json import read_fields
from t2i_jax.weights.published import Path, Published

_SIZES = {
    "guidance": ("guidance_embeds", False),
    "joint_depth": ("num_layers", 19),
    "single_depth": ("num_single_layers", 38),
    "heads": ("num_attention_heads", 24),
}
# Sizes of the inputs, which our layers take from their first input
_INPUTS = ("in_channels", "joint_attention_dim", "pooled_projection_dim")
_CHECKED = ("out_channels", "axes_dims_rope", "attention_head_dim")
_OUTSIDE = mmdit.OUTSIDE | {
    "guidance_in": "time_text_embed.guidance_embedder.linear_1",
    "guidance_out": "time_text_embed.guidance_embedder.linear_2",
    "patch_in": "x_embedder",
}
_SINGLE_BLOCK = {
    "modulation": "norm.linear",
    "query": "attn.to_q",
    "key": "attn.to_k",
    "value": "attn.to_v",
    "query_norm": "attn.norm_q",
    "key_norm": "attn.norm_k",
    "mlp_in": "proj_mlp",
    "out": "proj_out",
}
_BLOCKS = {
    "joint": ("transformer_blocks", mmdit.JOINT_BLOCK),
    "single": ("single_transformer_blocks", _SINGLE_BLOCK),
}


def fields(config: Mapping) -> dict:
    """Return the fields of `t2i_jax.models.flux_transformer.FluxTransformer` from a config.json.

    Raises ValueError for an architecture that FluxTransformer does not compute.
    """
    ours = read_fields(config, _SIZES, {"patch_size": (1, 1)}, (*_INPUTS, *_CHECKED))
    axes = tuple(config.get("axes_dims_rope", (16, 56, 56)))
    channels, head_dim = config.get("in_channels", 64), config.get("attention_head_dim", 128)
    if (out := config.get("out_channels")) not in (None, channels):
        raise ValueError(
            f"config.json has out_channels {out} and in_channels {channels}; only networks with as "
            "many of both are supported"
        )
    if channels % 4:
        raise ValueError(
            f"config.json has in_channels {channels}: it must be a multiple of 4, the latents of a "
            "square of 2 x 2"
        )
    if sum(axes) != head_dim or any(width % 2 for width in axes):
        raise ValueError(
            f"config.json has axes_dims_rope {axes}: even numbers whose sum is attention_head_dim, "
            f"{head_dim}, are supported"
        )
    return {**ours, "axes": axes}


def config_json(net: FluxTransformer, channels: int, text: int, pooled: int) -> dict:
    """Return the config.json with which diffusers builds the network: the inverse of `fields`.

    channels: of the latents. text, pooled: of the vectors of the text.
    """
    return dict(
        _class_name="FluxTransformer2DModel",
        patch_size=1,
        in_channels=PATCH**2 * channels,
        num_layers=net.joint_depth,
        num_single_layers=net.single_depth,
        attention_head_dim=sum(net.axes),
        num_attention_heads=net.heads,
        joint_attention_dim=text,
        pooled_projection_dim=pooled,
        guidance_embeds=net.guidance,
        axes_dims_rope=list(net.axes),
    )


def published(path: Path) -> Published:
    """Return where a parameter of FluxTransformer is in a published FluxTransformer2DModel."""
    return mmdit.published_layer(path, _OUTSIDE, _BLOCKS)
