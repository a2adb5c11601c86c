"""Stable Diffusion in the folders of diffusers: model_index.json, and a folder for each part.

The folder of the safety checker is not read. For Stable Diffusion 3 and FLUX.1 see
diffusers_flow.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from t2i_jax.convert.diffusers_flow import FLOWS, read_flow
from t2i_jax.convert.diffusers_parts import (
    OF_DIFFUSERS,
    describe_towers,
    part_of,
    plain,
    read_arrays,
    read_towers,
    run_config,
)
from t2i_jax.core.importer import Imported, Importer, only_converted
from t2i_jax.core.registry import did_you_mean
from t2i_jax.models import autoencoder_kl, sd_unet
from t2i_jax.text.clip import BEFORE_LAST, FINAL
from t2i_jax.weights import autoencoder_kl as autoencoder_weights
from t2i_jax.weights import sd_unet as unet_weights
from t2i_jax.weights.config_json import read_json
from t2i_jax.weights.scheduler import read_scheduler

DTYPES = ("float32", "bfloat16", "float16")
INDEX = "model_index.json"


class Kind(NamedTuple):
    """What is particular to a class of pipelines.

    encoders: {folder of a text encoder: that of its tokenizer}.
    hidden: which hidden state conditions the U-Net.
    guidance: the default of the published pipeline.
    """

    encoders: Mapping[str, str]
    hidden: int
    guidance: float


ONE = Kind({"text_encoder": "tokenizer"}, FINAL, 7.5)
TWO = Kind({"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}, BEFORE_LAST, 5.0)
KINDS = {
    "StableDiffusionPipeline": ONE,
    "StableDiffusionImg2ImgPipeline": ONE,
    "StableDiffusionInpaintPipeline": ONE,
    "StableDiffusionXLPipeline": TWO,
    "StableDiffusionXLImg2ImgPipeline": TWO,
    "StableDiffusionXLInpaintPipeline": TWO,
}


def importer(path) -> Importer | None:
    """Return the importer of the pipeline in the folder `path`, or None if there is none."""
    folder = Path(path)
    if not (folder / INDEX).is_file():
        return None
    return only_converted("a published pipeline", folder, read)


def read(folder: Path, dtype: str = "float32") -> Imported:
    """Read a pipeline.

    dtype: of the parameters and of the computation, one of DTYPES.
    Raises ValueError for a class of pipelines or an architecture that is not supported, for weights
    that do not fit, and for pickles; FileNotFoundError, naming it, for a part that is missing.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}: it can be {', '.join(DTYPES)}")
    index = read_json(folder / INDEX)
    name, known = index.get("_class_name"), (*KINDS, *FLOWS)
    if name not in known:
        raise ValueError(
            f"{folder / INDEX} is of a {name!r}: read are {', '.join(known)}"
            f"{did_you_mean(name, known)}"
        )
    if name in FLOWS:
        return read_flow(folder, name, dtype)
    kind = KINDS[name]
    scheduler = read_json(part_of(folder, "scheduler") / "scheduler_config.json")
    read_scheduler(scheduler)  # refuses what is not supported
    unet_json = read_json(part_of(folder, "unet") / "config.json")
    unet = sd_unet.UNet2DConditionModel(**unet_weights.fields(unet_json))
    vae_json = read_json(part_of(folder, "vae") / "config.json")
    vae = autoencoder_kl.AutoencoderKL(**autoencoder_weights.fields(vae_json))
    towers, tokenizer, length = describe_towers(folder, kind.encoders, kind.hidden, dtype)
    sides = unet_json.get("sample_size") or 64
    about = Description(
        unet=unet,
        vae=vae,
        towers=towers,
        length=length,
        scheduler=scheduler,
        guidance=kind.guidance,
        sides=(sides, sides) if isinstance(sides, int) else tuple(sides),
        zeros=index.get("force_zeros_for_empty_prompt", False),
    )
    arrays = {
        "unet": read_arrays(folder / "unet", OF_DIFFUSERS, unet_weights.read, unet, dtype),
        "vae": read_arrays(folder / "vae", OF_DIFFUSERS, autoencoder_weights.read, vae, dtype),
        **read_towers(folder, towers, dtype),
    }
    return assemble(about, arrays, tokenizer, dtype)


class Description(NamedTuple):
    """A Stable Diffusion 1, 2 or XL, without its arrays.

    towers: `config.text.towers`.
    length: tokens of a caption.
    scheduler: a scheduler_config.json.
    guidance: the default.
    sides: of the latents of a picture.
    zeros: whether the null text is encoded as zeros.
    """

    unet: sd_unet.UNet2DConditionModel
    vae: autoencoder_kl.AutoencoderKL
    towers: Mapping[str, Mapping[str, Any]]
    length: int
    scheduler: Mapping[str, Any]
    guidance: float
    sides: tuple[int, int]
    zeros: bool


def assemble(
    about: Description, arrays: Mapping[str, Any], tokenizer: Tokenizer, dtype: str
) -> Imported:
    """Return the model. arrays: the parameters of "unet", "vae" and each tower."""
    cell = 2 ** (len(about.vae.multipliers) - 1)
    height, width = (side * cell for side in about.sides)
    config = run_config(
        "stable_diffusion",
        text={"encoder": "clip", "length": about.length, "towers": about.towers},
        model={**plain(about.unet), "dtype": dtype},
        vae={**plain(about.vae), "dtype": dtype},
        diffusion={"scheduler": about.scheduler},
        sample={"guidance": about.guidance, "height": height, "width": width},
        data={"name": "folder", "resolution": min(height, width)},
    )
    frozen = {
        "first_stage": arrays["vae"],
        "text": {name: arrays[name] for name in about.towers},
        "null_text": {"clip": _null_text(tokenizer, about.length, about.zeros)},
    }
    return Imported(config, {"model": {"text": {}, "net": arrays["unet"]}}, frozen, tokenizer)


def _null_text(tokenizer: Tokenizer, length: int, zeros: bool) -> dict[str, np.ndarray]:
    """Return the tokens and the mask of the empty caption.

    zeros: return no token at all, which text/clip.py encodes as zeros.
    """
    ids = [] if zeros else tokenizer.encode("").ids
    tokens, mask = np.zeros(length, np.int32), np.zeros(length, bool)
    tokens[: len(ids)], mask[: len(ids)] = ids, True
    return {"tokens": tokens, "mask": mask}
