"""CLIP from a local folder in the format of Hugging Face.

It maps pictures and captions to vectors in one space.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from t2i_jax.core.types import AnyArray
from t2i_jax.features.extractor import Extractor
from t2i_jax.features.published_folder import embed_in_batches, find_file
from t2i_jax.models.clip import CLIP
from t2i_jax.text import clip_tokenizer
from t2i_jax.weights import arrays as weights
from t2i_jax.weights import clip as convert

WHERE = (
    "CLIP: {missing}. Give as the path of the extractor 'clip' a local folder in the format of "
    "Hugging Face, such as a copy of openai/clip-vit-base-patch32: config.json, model.safetensors "
    "(or pytorch_model.bin), preprocessor_config.json, and tokenizer.json (or vocab.json and "
    "merges.txt)"
)
# The usual name of a vision transformer of this width.
SIZE_NAMES = {384: "S", 768: "B", 1024: "L", 1280: "H"}


class Preprocessing(NamedTuple):
    """How pictures are prepared for the network.

    side: the shorter side is resized to this.
    crop: then a centred square of this side is cut out.
    mean, deviation: of each colour. Values in [0, 1] are normalised by them.
    """

    side: int
    crop: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def rule(self) -> str:
        """The preprocessing in words."""
        mean, deviation = (
            tuple(round(v, 4) for v in values) for values in (self.mean, self.deviation)
        )
        return (
            f"bicubic (antialiased) of the shorter side to {self.side}, "
            f"centred {self.crop} x {self.crop}, (x / 255 - {mean}) / {deviation}"
        )


def make(path: str = "") -> Extractor:
    """Return the extractor of the CLIP in the folder `path`, whose files `_file` describes.

    Features [B, D] and embedded captions are projected vectors of unit length. A caption is cut to
    75 tokens if the text tower has 77 positions.

    Raises FileNotFoundError, saying what is missing, and ValueError for another kind of model.
    """
    look = read_preprocessing(
        json.loads(_file(path, "preprocessor_config.json").read_text(encoding="utf-8"))
    )
    fields = convert.fields(json.loads(_file(path, "config.json").read_text(encoding="utf-8")))
    if look.crop != fields["image"]["side"]:
        raise ValueError(
            f"{path}: pictures are cut to {look.crop}, "
            f"and the network takes {fields['image']['side']}"
        )
    tokenizer = clip_tokenizer.load(_file(path, "tokenizer.json", "vocab.json").parent)
    end = tokenizer.token_to_id(clip_tokenizer.END)
    if end != fields["text"]["end"]:
        raise ValueError(
            f"{path}: captions end with token {end}, and config.json says {fields['text']['end']}"
        )

    file = _file(path, "model.safetensors", "pytorch_model.bin")
    net = CLIP(**fields)
    side, length = fields["image"]["side"], fields["text"]["length"]
    params = jax.device_put(convert.read(weights.read(file), net, str(file)))

    def apply(params, pictures):
        # By default TPUs multiply in bfloat16, GPUs in TF32.
        with jax.default_matmul_precision("float32"):
            x = preprocess(pictures, look)
            return {"features": net.apply({"params": params}, x, method=CLIP.embed_image)}

    @jax.jit
    def embed(params, tokens):
        with jax.default_matmul_precision("float32"):
            return net.apply({"params": params}, tokens, method=CLIP.embed_text)

    def embed_text(captions):
        tokens = clip_tokenizer.encode(tokenizer, captions, length)
        return embed_in_batches(functools.partial(embed, params), tokens, fields["embed"])

    image = fields["image"]
    name = f"CLIP ViT-{SIZE_NAMES.get(image['width'], image['width'])}/{image['patch']}"
    name += f"-{side}" if side != 224 else ""
    return Extractor(name, look.rule, params, apply, embed_text=embed_text)


def preprocess(
    pictures: UInt8[AnyArray, "B H W 3"], look: Preprocessing
) -> Float[Array, "B crop crop 3"]:
    """Resize, crop and normalise pictures.

    The resize is that of `resize`, with which CLIP was trained.
    """
    _, height, width, _ = pictures.shape
    short = min(height, width)
    height, width = look.side * height // short, look.side * width // short
    x = resize(pictures, height, width)
    top, left = (height - look.crop) // 2, (width - look.crop) // 2
    x = x[:, top : top + look.crop, left : left + look.crop]
    return (x / 255 - jnp.asarray(look.mean)) / jnp.asarray(look.deviation)


def resize(
    pictures: UInt8[AnyArray, "B H W 3"], height: int, width: int
) -> Float[Array, "B {height} {width} 3"]:
    """Return pictures of another size, in whole levels from 0 to 255, as Pillow resizes them.

    A cubic filter, widened when it shrinks, along rows and then along columns, rounded to whole
    levels each time.
    """
    x = pictures.astype(jnp.float32)
    for shape in ((len(x), x.shape[1], width, 3), (len(x), height, width, 3)):
        x = jnp.clip(jnp.floor(jax.image.resize(x, shape, "cubic", antialias=True) + 0.5), 0, 255)
    return x


def read_preprocessing(config: Mapping) -> Preprocessing:
    """Return the preprocessing that a preprocessor_config.json describes.

    Raises ValueError if it is not what `preprocess` does.
    """
    side: Any = config.get("size", 224)
    crop: Any = config.get("crop_size", 224)
    side = side.get("shortest_edge") if isinstance(side, Mapping) else side
    crop = crop.get("height") if isinstance(crop, Mapping) else crop
    steps = ("do_resize", "do_center_crop", "do_normalize")
    known = (
        config.get("resample", 3) == 3
        and all(config.get(step, True) for step in steps)
        and "image_mean" in config
        and "image_std" in config
    )
    if side is None or crop is None or side < crop or not known:
        raise ValueError(
            "preprocessor_config.json should say: the shorter side to `size`, bicubic "
            "(resample 3), then a centred square of `crop_size`, not larger, then `image_mean` "
            f"and `image_std`. It says {dict(config)}"
        )
    return Preprocessing(side, crop, tuple(config["image_mean"]), tuple(config["image_std"]))


def _file(folder, *names) -> Path:
    return find_file(folder, names, WHERE)
