"""CLIP in the format of Hugging Face: sizes from its config.json, and names of its arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from t2i_jax.models.clip import CLIP, TextTower, param_shapes, text_param_shapes
from t2i_jax.weights.derived import renamed
from t2i_jax.weights.published import Path, Published, read_params

# The values of fields that config.json leaves out: the defaults of the format, a ViT-B/32.
_TEXT = dict(
    vocab_size=49408,
    hidden_size=512,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=8,
    max_position_embeddings=77,
    eos_token_id=49407,
)
_IMAGE = dict(
    image_size=224,
    patch_size=32,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
)
_BOTH = dict(hidden_act="quick_gelu", layer_norm_eps=1e-5)
WITH_PROJECTION = "CLIPTextModelWithProjection"

PROJECTIONS = {"image_projection": "visual_projection", "text_projection": "text_projection"}
TOWERS = {"image_tower": "vision_model", "text_tower": "text_model"}
TOWER = {
    "embed": "embeddings.token_embedding",
    "class_token": "embeddings.class_embedding",
    "patch_in": "embeddings.patch_embedding",
    "positions": "embeddings.position_embedding.weight",
    "norm_in": "pre_layrnorm",  # spelt like this in the files
}
NORM_OUT = {"image_tower": "post_layernorm", "text_tower": "final_layer_norm"}
BLOCK = {
    "attention_norm": "layer_norm1",
    "mlp_norm": "layer_norm2",
    "mlp_in": "mlp.fc1",
    "mlp_out": "mlp.fc2",
    "attention": "self_attn",
}
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
LEAVES = {"kernel": ".weight", "scale": ".weight", "embedding": ".weight", "bias": ".bias", "": ""}


def fields(config: Mapping) -> dict:
    """Return the fields of `t2i_jax.models.clip.CLIP` from a config.json.

    Raises ValueError for an architecture that `CLIP` does not compute.
    """
    if "text_config" not in config or "vision_config" not in config:
        raise ValueError(
            f"config.json is of a {config.get('model_type')!r}: "
            "a CLIP has a text_config and a vision_config"
        )
    text, image = config["text_config"], config["vision_config"]
    return {
        "embed": config.get("projection_dim", 512),
        "image": image_fields(image),
        "text": text_fields(text),
    }


def text_fields(config: Mapping) -> dict:
    """Return the fields of TextTower.

    config: the `text_config` of a config.json, or the config.json of a text encoder alone.
    """
    c = {**_BOTH, **_TEXT, **config}
    # In the oldest published files, 2 means the last token of the vocabulary.
    end = c["vocab_size"] - 1 if c["eos_token_id"] == 2 else c["eos_token_id"]
    projects = WITH_PROJECTION in (c.get("architectures") or ())
    return {
        "vocab_size": c["vocab_size"],
        "length": c["max_position_embeddings"],
        "end": end,
        "projection": c.get("projection_dim", 512) if projects else 0,
        **_tower_fields(c),
    }


def text_config_json(tower: TextTower) -> dict:
    """Return the config.json of a text encoder alone: the inverse of `text_fields`."""
    return {
        "architectures": [WITH_PROJECTION if tower.projection else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": tower.vocab_size,
        "max_position_embeddings": tower.length,
        "eos_token_id": tower.end,
        "bos_token_id": tower.end - 1,
        "pad_token_id": 1,
        "projection_dim": tower.projection or tower.width,
        "hidden_size": tower.width,
        "intermediate_size": tower.mlp or 4 * tower.width,
        "num_hidden_layers": tower.depth,
        "num_attention_heads": tower.heads,
        "hidden_act": tower.activation,
        "layer_norm_eps": 1e-5,
    }


def image_fields(config: Mapping) -> dict:
    """Return the fields of ImageTower from the `vision_config` of a config.json."""
    c = {**_BOTH, **_IMAGE, **config}
    return {"side": c["image_size"], "patch": c["patch_size"], **_tower_fields(c)}


def _tower_fields(c: Mapping) -> dict:
    if c["layer_norm_eps"] != 1e-5 or c["hidden_act"] not in ("quick_gelu", "gelu"):
        raise ValueError(
            f"config.json has layer_norm_eps {c['layer_norm_eps']} and "
            f"hidden_act {c['hidden_act']!r}; read are 1e-05, and quick_gelu or gelu"
        )
    names = dict(
        width="hidden_size",
        depth="num_hidden_layers",
        heads="num_attention_heads",
        mlp="intermediate_size",
    )
    return {ours: c[theirs] for ours, theirs in names.items()} | {"activation": c["hidden_act"]}


def published(path: Path) -> Published:
    """Return the place of a parameter of CLIP in the file of a CLIPModel."""
    tower, *rest = path
    if tower == "log_scale":
        return Published("logit_scale", "same")
    if tower not in TOWERS:
        return Published(f"{PROJECTIONS[tower]}.weight", "linear")
    layer, *rest = rest
    if layer.startswith("block_"):
        number, (part, *inner, leaf) = layer.removeprefix("block_"), rest
        names = [BLOCK[part], *(ATTENTION[name] for name in inner)]
        name, layout = ".".join(["encoder.layers", number, *names]), "linear"
    else:
        name = NORM_OUT[tower] if layer == "norm_out" else TOWER[layer]
        leaf, layout = rest[0] if rest else "", "conv"
    layout = layout if leaf == "kernel" else "same"
    return Published(f"{TOWERS[tower]}.{name}{LEAVES[leaf]}", layout)


def text_published(path: Path) -> Published:
    """Return the place of a parameter of TextTower in the file of a text encoder alone."""
    whole = "text_projection" if path[0] == "projection" else "text_tower"
    return published((whole, *(path[1:] if whole == "text_projection" else path)))


def read(arrays: Mapping[str, np.ndarray], net: CLIP, source: str) -> Any:
    """Return the parameters of `net` from the arrays of a CLIPModel; `source` is for messages.

    Raises ValueError if the arrays do not fit.
    """
    return read_params(arrays, param_shapes(net), published, source, is_constant)


def read_text(
    arrays: Mapping[str, np.ndarray], tower: TextTower, source: str, dtype: Any = None
) -> Any:
    """Return the parameters of `tower` from the arrays of a text encoder alone.

    Some versions of that library leave out the first word of the names, "text_model".
    source, dtype: see `read_params`.
    Raises ValueError if the arrays do not fit.
    """

    def full_name(name):
        known = name.startswith(("text_model.", "text_projection."))
        return name if known else f"text_model.{name}"

    arrays, shapes = renamed(arrays, full_name), text_param_shapes(tower)
    return read_params(arrays, shapes, text_published, source, is_constant, dtype)


def is_constant(name: str) -> bool:
    """Return whether an array of a file holds no parameter of CLIP or SigLIP."""
    return name.endswith("embeddings.position_ids")  # 0, 1, 2, ..., in older files
