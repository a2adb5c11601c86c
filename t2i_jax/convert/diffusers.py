"""Stable Diffusion in the folders of diffusers: model_index.json, and a folder for each part.

The folder of the safety checker is not read. Arrays are read one at a time, so that the memory of
the host is little more than what the parameters take.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tokenizers import Tokenizer, processors

from t2i_jax import config as configs
from t2i_jax.config.defaults import complete
from t2i_jax.core.importer import Imported, Importer
from t2i_jax.core.registry import did_you_mean
from t2i_jax.models import autoencoder_kl, clip, sd_unet
from t2i_jax.text import clip_tokenizer
from t2i_jax.text.clip import BEFORE_LAST, FINAL
from t2i_jax.weights import autoencoder_kl as autoencoder_weights
from t2i_jax.weights import clip as clip_weights
from t2i_jax.weights import sd_unet as unet_weights
from t2i_jax.weights.config_json import read_json
from t2i_jax.weights.scheduler import read_scheduler
from t2i_jax.weights.stored import StoredArrays, open_folder

DTYPES = ("float32", "bfloat16", "float16")
INDEX = "model_index.json"
OF_DIFFUSERS, OF_TRANSFORMERS = "diffusion_pytorch_model", "model"  # names of weight files


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
    "StableDiffusionXLPipeline": TWO,
    "StableDiffusionXLImg2ImgPipeline": TWO,
}


def importer(path) -> Importer | None:
    """Return the importer of the pipeline in the folder `path`, or None if there is none."""
    folder = Path(path)
    if not (folder / INDEX).is_file():
        return None
    how = (
        f"{folder} is a published pipeline: convert it to a run (main.py convert --from={folder} "
        "--workdir=RUN), and set init_from=RUN"
    )

    def refuse(*_) -> Any:
        raise ValueError(how)

    return Importer(
        what="a published pipeline",
        check=refuse,
        tokenizer=refuse,
        start=refuse,
        read=functools.partial(read, folder),
    )


def read(folder: Path, dtype: str = "float32") -> Imported:
    """Read a pipeline.

    dtype: of the parameters and of the computation, one of DTYPES.
    Raises ValueError for a class of pipelines or an architecture that is not supported, for weights
    that do not fit, and for pickles; FileNotFoundError, naming it, for a part that is missing.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}: it can be {', '.join(DTYPES)}")
    index = read_json(folder / INDEX)
    name = index.get("_class_name")
    if name not in KINDS:
        raise ValueError(
            f"{folder / INDEX} is of a {name!r}: read are {', '.join(KINDS)}"
            f"{did_you_mean(name, KINDS)}"
        )
    kind = KINDS[name]
    scheduler = read_json(_part(folder, "scheduler") / "scheduler_config.json")
    read_scheduler(scheduler)  # refuses what is not supported
    unet_json = read_json(_part(folder, "unet") / "config.json")
    unet = sd_unet.UNet2DConditionModel(**unet_weights.fields(unet_json))
    vae_json = read_json(_part(folder, "vae") / "config.json")
    vae = autoencoder_kl.AutoencoderKL(**autoencoder_weights.fields(vae_json))
    jsons = {name: read_json(_part(folder, name) / "config.json") for name in kind.encoders}
    towers = {name: clip.TextTower(**clip_weights.text_fields(c)) for name, c in jsons.items()}

    tokenizers = {name: read_tokenizer(_part(folder, t)) for name, t in kind.encoders.items()}
    tokenizer = next(iter(tokenizers.values()))
    for each in tokenizers.values():
        if each.get_vocab() != tokenizer.get_vocab():
            raise ValueError(f"the tokenizers in {folder} have different vocabularies")
    pads = {name: _padding(folder / t, tokenizer) for name, t in kind.encoders.items()}
    length = min(tower.length for tower in towers.values())
    sides = unet_json.get("sample_size") or 64
    sides = (sides, sides) if isinstance(sides, int) else sides
    cell = 2 ** (len(vae.multipliers) - 1)
    kept = {} if dtype == "float32" else {"dtype": dtype}  # as runs of float32 have been stored
    config = _config(
        text={
            "encoder": "clip",
            "length": length,
            "towers": {
                name: {**_plain(tower), **kept, "hidden": kind.hidden, "pad": pads[name]}
                for name, tower in towers.items()
            },
        },
        model={**_plain(unet), "dtype": dtype},
        vae={**_plain(vae), "dtype": dtype},
        diffusion={"scheduler": scheduler},
        sample={"guidance": kind.guidance, "height": sides[0] * cell, "width": sides[1] * cell},
        data={"name": "folder", "resolution": min(sides) * cell},
    )
    net = _read(folder / "unet", OF_DIFFUSERS, unet_weights.read, unet, dtype)
    frozen = {
        "first_stage": _read(folder / "vae", OF_DIFFUSERS, autoencoder_weights.read, vae, dtype),
        "text": {
            name: _read(folder / name, OF_TRANSFORMERS, clip_weights.read_text, tower, dtype)
            for name, tower in towers.items()
        },
        "null_text": {
            "clip": _null_text(tokenizer, length, index.get("force_zeros_for_empty_prompt", False))
        },
    }
    return Imported(config, {"model": {"text": {}, "net": net}}, frozen, tokenizer)


def read_tokenizer(folder: Path) -> Tokenizer:
    """Return CLIP's tokenizer in a folder, whose captions start and end with special tokens."""
    tokenizer = clip_tokenizer.load(folder)
    start, end = clip_tokenizer.START, clip_tokenizer.END
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{start} $A {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (start, end)],
    )
    return tokenizer


def _padding(folder: Path, tokenizer: Tokenizer) -> int:
    """Return the padding token: the end token, unless a file of the folder names another one."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file() and (token := read_json(folder / name).get("pad_token")):
            token = token["content"] if isinstance(token, dict) else token
            if (number := tokenizer.token_to_id(token)) is None:
                raise ValueError(f"{folder / name} has pad_token {token!r}: no token is called so")
            return number
    return tokenizer.get_vocab()[clip_tokenizer.END]


def _null_text(tokenizer: Tokenizer, length: int, zeros: bool) -> dict[str, np.ndarray]:
    """Return the tokens and the mask of the empty caption.

    zeros: return no token at all, which text/clip.py encodes as zeros.
    """
    ids = [] if zeros else tokenizer.encode("").ids
    tokens, mask = np.zeros(length, np.int32), np.zeros(length, bool)
    tokens[: len(ids)], mask[: len(ids)] = ids, True
    return {"tokens": tokens, "mask": mask}


def _config(**sections) -> Any:
    """Return the config of a run: these sections, and the defaults of all other fields. Locked."""
    given = {**configs.base().to_dict(), "family": "stable_diffusion", **sections}
    return ConfigDict(complete(given)[0]).lock()


def _plain(net: Any) -> dict[str, Any]:
    """Return the fields of a network as a config has them."""
    skipped = ("parent", "name", "dtype", "remat")
    fields = {name: getattr(net, name) for name in type(net).__dataclass_fields__}
    return {name: value for name, value in fields.items() if name not in skipped}


def _read(folder: Path, stem: str, read_arrays: Callable, net: Any, dtype: str) -> Any:
    arrays: StoredArrays = open_folder(folder, stem)
    return read_arrays(arrays, net, str(folder), jnp.dtype(dtype))


def _part(folder: Path, name: str) -> Path:
    if not (folder / name).is_dir():
        raise FileNotFoundError(f"{folder} has no {name}/: a published pipeline has that part")
    return folder / name
