"""CLIP in the format of Hugging Face: sizes from its config.json, and names of its arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

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
    return {
        "vocab_size": c["vocab_size"],
        "length": c["max_position_embeddings"],
        "end": end,
        **_tower_fields(c),
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


def from_published(arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the parameters of CLIP from the arrays of a CLIPModel by name."""
    return {
        "image_tower": image_params(arrays),
        "text_tower": text_params(arrays),
        "image_projection": {"kernel": arrays["visual_projection.weight"].T},
        "text_projection": {"kernel": arrays["text_projection.weight"].T},
        "log_scale": arrays["logit_scale"].reshape(()),
    }


def text_params(arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the parameters of TextTower.

    arrays: `text_model.*` of a CLIPModel or of a text encoder alone. Some versions of that library
        write a text encoder alone without the first word of the names.
    """
    at = "text_model." if any(name.startswith("text_model.") for name in arrays) else ""
    return {
        "embed": {"embedding": arrays[f"{at}embeddings.token_embedding.weight"]},
        "positions": arrays[f"{at}embeddings.position_embedding.weight"],
        "norm_out": _norm(arrays, f"{at}final_layer_norm"),
        **_blocks(arrays, at),
    }


def image_params(arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the parameters of ImageTower from the arrays `vision_model.*` of a CLIPModel."""
    at = "vision_model."
    patch_in = arrays[f"{at}embeddings.patch_embedding.weight"].transpose(2, 3, 1, 0)
    return {
        "class_token": arrays[f"{at}embeddings.class_embedding"],
        "patch_in": {"kernel": patch_in},
        "positions": arrays[f"{at}embeddings.position_embedding.weight"],
        "norm_in": _norm(arrays, f"{at}pre_layrnorm"),  # spelt like this in the files
        "norm_out": _norm(arrays, f"{at}post_layernorm"),
        **_blocks(arrays, at),
    }


def _norm(arrays, name):
    return {"scale": arrays[f"{name}.weight"], "bias": arrays[f"{name}.bias"]}


def _dense(arrays, name):
    return {"kernel": arrays[f"{name}.weight"].T, "bias": arrays[f"{name}.bias"]}


def _blocks(arrays, at) -> dict:
    """Return block_0, block_1, ...: one for each layer under `at`."""
    at = f"{at}encoder.layers."
    layers = {int(name.removeprefix(at).split(".")[0]) for name in arrays if name.startswith(at)}
    attention = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}

    def block(at):
        return {
            "attention_norm": _norm(arrays, f"{at}layer_norm1"),
            "attention": {
                ours: _dense(arrays, f"{at}self_attn.{theirs}")
                for ours, theirs in attention.items()
            },
            "mlp_norm": _norm(arrays, f"{at}layer_norm2"),
            "mlp_in": _dense(arrays, f"{at}mlp.fc1"),
            "mlp_out": _dense(arrays, f"{at}mlp.fc2"),
        }

    return {f"block_{i}": block(f"{at}{i}.") for i in layers}
