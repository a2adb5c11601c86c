"""SigLIP in the format of Hugging Face: sizes from its config.json, and names of its arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from t2i_jax.models.siglip import SigLIP, param_shapes
from t2i_jax.weights.clip import ATTENTION, BLOCK, LEAVES, NORM_OUT, TOWERS, is_constant
from t2i_jax.weights.config_json import read_fields
from t2i_jax.weights.derived import DerivedArrays, Source
from t2i_jax.weights.published import Path, Published, read_params

# The values of fields that config.json leaves out: the defaults of the format, a ViT-B/16.
_TOWER = {
    "width": ("hidden_size", 768),
    "depth": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
    "mlp": ("intermediate_size", 3072),
}
_IMAGE = {"side": ("image_size", 224), "patch": ("patch_size", 16), **_TOWER}
_TEXT = {
    "vocab_size": ("vocab_size", 32000),
    "length": ("max_position_embeddings", 64),
    **_TOWER,
}
_ONLY = {
    "hidden_act": ("gelu_pytorch_tanh", "gelu_pytorch_tanh"),
    "layer_norm_eps": (1e-6, 1e-6),
}
NAMES = {
    "embed": "embeddings.token_embedding",
    "patch_in": "embeddings.patch_embedding",
    "positions": "embeddings.position_embedding.weight",
    "head": "head",
}
POOL = {
    "probe": "probe",
    "attention": "attention",
    "mlp_norm": "layernorm",
    "mlp_in": "mlp.fc1",
    "mlp_out": "mlp.fc2",
}
POOLED = "vision_model.head.attention"


def fields(config: Mapping) -> dict:
    """Return the fields of `t2i_jax.models.siglip.SigLIP` from a config.json.

    Raises ValueError for an architecture that `SigLIP` does not compute.
    """
    if config.get("model_type") != "siglip":
        raise ValueError(
            f"config.json is of a {config.get('model_type')!r}: a SigLIP has model_type 'siglip'"
        )
    text_config = config.get("text_config", {})
    image = read_fields(config.get("vision_config", {}), _IMAGE, _ONLY)
    text = read_fields(text_config, _TEXT, _ONLY)
    channels = text_config.get("projection_size") or text["width"]
    if channels != image["width"]:
        raise ValueError(
            f"config.json: captions have {channels} channels and pictures {image['width']}: "
            "they cannot be compared"
        )
    return {"image": image, "text": {**text, "channels": channels}}


def published(path: Path) -> Published:
    """Return the place of a parameter of SigLIP among the arrays of `split_attention`."""
    tower, *rest = path
    if tower in ("log_scale", "offset"):
        return Published({"log_scale": "logit_scale", "offset": "logit_bias"}[tower], "same")
    layer, *rest = rest
    if layer == "trunk" and rest[0] == "norm":
        names = [NORM_OUT[tower]]
    elif layer == "trunk":
        number, part, *inner = rest[:-1]
        names = ["encoder.layers", number.removeprefix("block_"), BLOCK[part]]
        names += [ATTENTION[name] for name in inner]
    elif layer == "pool":
        part, *inner = rest[:-1] or rest
        names = ["head", POOL[part], *(ATTENTION[name] for name in inner)]
    else:
        names = [NAMES[layer]]
    leaf = rest[-1] if rest else ""
    layout = "same"
    if leaf == "kernel":
        layout = "conv" if layer == "patch_in" else "linear"
    return Published(".".join([TOWERS[tower], *names]) + LEAVES.get(leaf, ""), layout)


def split_attention(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Return the arrays of a file, with the fused queries, keys and values of the pool apart."""
    sources = {name: Source(name) for name in arrays}
    for leaf in ("weight", "bias"):
        stored = f"{POOLED}.in_proj_{leaf}"
        if sources.pop(stored, None):
            for i, part in enumerate("qkv"):
                split = Source(stored, lambda a, i=i: np.split(a, 3)[i])
                sources[f"{POOLED}.{part}_proj.{leaf}"] = split
    return DerivedArrays(arrays, sources)


def read(arrays: Mapping[str, np.ndarray], net: SigLIP, source: str) -> Any:
    """Return the parameters of `net` from the arrays of a SiglipModel; `source` is for messages.

    Raises ValueError if the arrays do not fit.
    """
    shapes = param_shapes(net)
    return read_params(split_attention(arrays), shapes, published, source, is_constant)
