"""SigLIP from a local folder in the format of Hugging Face.

It maps pictures and captions to vectors in one space.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from t2i_jax.features.clip import SIZE_NAMES, resize
from t2i_jax.features.extractor import Extractor
from t2i_jax.features.published_folder import embed_in_batches, find_file
from t2i_jax.models.siglip import SigLIP
from t2i_jax.text import siglip_tokenizer
from t2i_jax.weights import arrays as weights
from t2i_jax.weights import siglip as convert

WHERE = (
    "SigLIP: {missing}. Give as the path of the extractor 'siglip' a local folder in the format of "
    "Hugging Face, such as a copy of google/siglip-base-patch16-224: config.json, "
    "model.safetensors, preprocessor_config.json and tokenizer.json"
)


def make(path: str = "") -> Extractor:
    """Return the extractor of the SigLIP in the folder `path`, whose files WHERE names.

    Features [B, D] and embedded captions are vectors of unit length.

    Raises FileNotFoundError, saying what is missing, and ValueError for another kind of model.
    """
    fields = convert.fields(json.loads(_file(path, "config.json").read_text(encoding="utf-8")))
    look = json.loads(_file(path, "preprocessor_config.json").read_text(encoding="utf-8"))
    side, mean, deviation = check_preprocessing(look, fields["image"]["side"])
    tokenizer = siglip_tokenizer.load(_file(path, "tokenizer.json"))
    file, net = _file(path, "model.safetensors"), SigLIP(**fields)
    params = jax.device_put(convert.read(weights.read(file), net, str(file)))

    def apply(params, pictures):
        # By default TPUs multiply in bfloat16, GPUs in TF32.
        with jax.default_matmul_precision("float32"):
            x = (resize(pictures, side, side) / 255 - mean) / deviation
            return {"features": net.apply({"params": params}, x, method=SigLIP.embed_image)}

    @jax.jit
    def embed(params, tokens):
        with jax.default_matmul_precision("float32"):
            return net.apply({"params": params}, tokens, method=SigLIP.embed_text)

    def embed_text(captions):
        tokens = siglip_tokenizer.encode(tokenizer, captions, fields["text"]["length"])
        channels = fields["text"]["channels"]
        return embed_in_batches(functools.partial(embed, params), tokens, channels)

    width, patch = fields["image"]["width"], fields["image"]["patch"]
    name = f"SigLIP ViT-{SIZE_NAMES.get(width, width)}/{patch}"
    name += f"-{side}" if side != 224 else ""
    rule = (
        f"bicubic (antialiased) to {side} x {side}, "
        f"(x / 255 - {tuple(look['image_mean'])}) / {tuple(look['image_std'])}"
    )
    return Extractor(name, rule, params, apply, embed_text=embed_text)


def check_preprocessing(config: Mapping, side: int) -> tuple[int, Any, Any]:
    """Return (side, mean, deviation) of a preprocessor_config.json.

    side: what the network takes.
    Raises ValueError if it is not a resize to that square.
    """
    steps = ("do_resize", "do_rescale", "do_normalize")
    known = (
        config.get("size") == {"height": side, "width": side}
        and config.get("resample", 3) == 3
        and all(config.get(step, True) for step in steps)
        and not config.get("do_center_crop", False)
        and "image_mean" in config
        and "image_std" in config
    )
    if not known:
        raise ValueError(
            f"preprocessor_config.json should say: to a square of {side}, bicubic (resample 3), "
            f"then `image_mean` and `image_std`. It says {dict(config)}"
        )
    return side, np.float32(config["image_mean"]), np.float32(config["image_std"])


def _file(folder, name: str) -> Path:
    return find_file(folder, (name,), WHERE)
