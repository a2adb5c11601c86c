"""CLIP, from a local folder in the format of Hugging Face: pictures and captions as vectors of one space."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.convert import clip as convert
from t2i_jax.convert import weights
from t2i_jax.features.extractor import Extractor
from t2i_jax.models.clip import CLIP
from t2i_jax.text import clip_tokenizer

LETTERS = {384: "S", 768: "B", 1024: "L", 1280: "H"}  # what a vision transformer of this width is called


class Look(NamedTuple):
    """How a picture is made ready: its shorter side to `side`, a centred square of `crop`, minus mean, through deviation."""

    side: int
    crop: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def rule(self) -> str:
        mean, deviation = (tuple(round(v, 4) for v in values) for values in (self.mean, self.deviation))
        return (
            f"bicubic (antialiased) of the shorter side to {self.side}, centred {self.crop} x {self.crop},"
            f" (x / 255 - {mean}) / {deviation}"
        )


def make(path: str = "") -> Extractor:
    """The extractor with the CLIP in the folder `path`, in the format that `_file` describes.

    features [B, D]: projected vectors of unit length. embed_text: captions -> the same, a caption cut to 75 tokens where the
    text tower has 77 places. Raises FileNotFoundError, saying what is missing, and ValueError for another kind of model.
    """
    look = _look(json.loads(_file(path, "preprocessor_config.json").read_text(encoding="utf-8")))
    fields = convert.fields(json.loads(_file(path, "config.json").read_text(encoding="utf-8")))
    if look.crop != fields["image"]["side"]:
        raise ValueError(f"{path}: pictures are cut to {look.crop}, and the network takes {fields['image']['side']}")
    tokenizer = clip_tokenizer.load(_file(path, "tokenizer.json", "vocab.json").parent)
    end = tokenizer.token_to_id(clip_tokenizer.END)
    if end != fields["text"]["end"]:
        raise ValueError(f"{path}: captions end with token {end}, and config.json says {fields['text']['end']}")

    file = _file(path, "model.safetensors", "pytorch_model.bin")
    net = CLIP(**fields)
    side, length = fields["image"]["side"], fields["text"]["length"]
    inputs = jnp.zeros((1, side, side, 3)), jnp.zeros((1, length), int)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    params = jax.device_put(weights.fit(convert.from_published(weights.read(file)), shapes, str(file)))

    def apply(params, pictures):
        with jax.default_matmul_precision("float32"):  # else TPUs multiply in bfloat16, GPUs in TF32
            return {"features": net.apply({"params": params}, ready(pictures, look), method=CLIP.embed_image)}

    @jax.jit
    def embed(params, tokens):
        with jax.default_matmul_precision("float32"):
            return net.apply({"params": params}, tokens, method=CLIP.embed_text)

    def embed_text(captions, batch=64):
        tokens = clip_tokenizer.encode(tokenizer, captions, length)
        out = np.zeros((len(tokens), fields["embed"]), np.float32)
        for i in range(0, len(tokens), batch):
            rows = tokens[i : i + batch]
            filled = np.pad(rows, ((0, min(batch, len(tokens)) - len(rows)), (0, 0)))  # one shape, one program
            out[i : i + batch] = embed(params, filled)[: len(rows)]
        return out

    image = fields["image"]
    name = f"CLIP ViT-{LETTERS.get(image['width'], image['width'])}/{image['patch']}"
    name += f"-{side}" if side != 224 else ""
    return Extractor(name, look.rule, params, apply, embed_text=embed_text)


def ready(pictures, look: Look):
    """Pictures uint8 [B, H, W, 3] as the network wants them, float32 [B, crop, crop, 3].

    The resize is Pillow's, with which CLIP was trained: a cubic filter as wide as the shrinking needs, along rows, then along
    columns, rounded to whole levels each time.
    """
    batch, height, width, _ = pictures.shape
    short = min(height, width)
    height, width = look.side * height // short, look.side * width // short
    x = pictures.astype(jnp.float32)
    for shape in ((batch, x.shape[1], width, 3), (batch, height, width, 3)):
        x = jnp.clip(jnp.floor(jax.image.resize(x, shape, "cubic", antialias=True) + 0.5), 0, 255)
    top, left = (height - look.crop) // 2, (width - look.crop) // 2
    x = x[:, top : top + look.crop, left : left + look.crop]
    return (x / 255 - jnp.asarray(look.mean)) / jnp.asarray(look.deviation)


def _look(config: Mapping) -> Look:
    """The `Look` that a preprocessor_config.json describes. Raises ValueError if it is not what `ready` does."""
    side, crop = config.get("size", 224), config.get("crop_size", 224)
    side = side.get("shortest_edge") if isinstance(side, Mapping) else side
    crop = crop.get("height") if isinstance(crop, Mapping) else crop
    steps = [name for name in ("do_resize", "do_center_crop", "do_normalize") if not config.get(name, True)]
    colours = "image_mean" in config and "image_std" in config
    if side is None or crop is None or side < crop or config.get("resample", 3) != 3 or steps or not colours:
        raise ValueError(
            "preprocessor_config.json should say: the shorter side to `size`, bicubic (resample 3), then a centred square of"
            f" `crop_size`, not larger, then `image_mean` and `image_std`. It says {dict(config)}"
        )
    return Look(side, crop, tuple(config["image_mean"]), tuple(config["image_std"]))


def _file(folder, *names) -> Path:
    """The first file of these names that `folder` has."""
    for name in names:
        if (Path(folder).expanduser() / name).is_file():
            return Path(folder).expanduser() / name
    raise FileNotFoundError(
        f"CLIP: no {' or '.join(names)} in {str(folder)!r}. Give as the path of the extractor 'clip' a local folder in the"
        " format of Hugging Face, such as a copy of openai/clip-vit-base-patch32: config.json, model.safetensors (or"
        " pytorch_model.bin), preprocessor_config.json, and tokenizer.json (or vocab.json and merges.txt)"
    )
