"""The parts of a published pipeline in the format of diffusers: a folder for each of them.

Arrays are read one at a time, so that the memory of the host is little more than what the
parameters take.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict
from tokenizers import Tokenizer, processors

from t2i_jax import config as configs
from t2i_jax.config.defaults import complete
from t2i_jax.models.clip import TextTower
from t2i_jax.text import clip_tokenizer
from t2i_jax.text.clip import make_tower
from t2i_jax.weights import clip as clip_weights
from t2i_jax.weights.config_json import read_json
from t2i_jax.weights.stored import StoredArrays, open_folder

OF_DIFFUSERS, OF_TRANSFORMERS = "diffusion_pytorch_model", "model"  # names of weight files


def describe_towers(
    folder: Path, encoders: Mapping[str, str], hidden: int, dtype: str
) -> tuple[dict[str, dict[str, Any]], Tokenizer, int]:
    """Return (`config.text.towers`, the tokenizer of all, the tokens of a caption) for CLIP.

    encoders: {folder of a text encoder: that of its tokenizer}.
    hidden: which hidden state conditions the network.
    Raises ValueError for an architecture that is not supported, and for tokenizers that differ;
    FileNotFoundError, naming it, for a part that is missing.
    """
    jsons = {name: read_json(part_of(folder, name) / "config.json") for name in encoders}
    towers = {name: TextTower(**clip_weights.text_fields(c)) for name, c in jsons.items()}
    tokenizers = {name: read_tokenizer(part_of(folder, t)) for name, t in encoders.items()}
    tokenizer = next(iter(tokenizers.values()))
    for each in tokenizers.values():
        if each.get_vocab() != tokenizer.get_vocab():
            raise ValueError(f"the tokenizers in {folder} have different vocabularies")
    pads = {name: padding_of(folder / t, tokenizer) for name, t in encoders.items()}
    described = {
        name: describe_tower(tower, hidden, pads[name], dtype) for name, tower in towers.items()
    }
    return described, tokenizer, min(tower.length for tower in towers.values())


def describe_tower(tower: TextTower, hidden: int, pad: int, dtype: str) -> dict[str, Any]:
    """Return an entry of `config.text.towers`. pad: the token that fills a caption up."""
    kept = {} if dtype == "float32" else {"dtype": dtype}  # as runs of float32 have been stored
    return {**plain(tower), **kept, "hidden": hidden, "pad": pad}


def read_towers(folder: Path, towers: Mapping[str, Mapping], dtype: str) -> dict[str, Any]:
    """Return {name: parameters} of CLIP's text encoders. towers: those of `describe_towers`."""
    read = clip_weights.read_text
    nets = {name: make_tower(about)[0] for name, about in towers.items()}
    return {
        name: read_arrays(folder / name, OF_TRANSFORMERS, read, net, dtype)
        for name, net in nets.items()
    }


def read_tokenizer(folder: Path) -> Tokenizer:
    """Return CLIP's tokenizer in a folder, whose captions start and end with special tokens."""
    return with_special_tokens(clip_tokenizer.load(folder))


def with_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Return CLIP's tokenizer so changed that captions start and end with special tokens."""
    start, end = clip_tokenizer.START, clip_tokenizer.END
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{start} $A {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (start, end)],
    )
    return tokenizer


def padding_of(folder: Path, tokenizer: Tokenizer) -> int:
    """Return the padding token: the end token, unless a file of the folder names another one."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file() and (token := read_json(folder / name).get("pad_token")):
            token = token["content"] if isinstance(token, dict) else token
            if (number := tokenizer.token_to_id(token)) is None:
                raise ValueError(f"{folder / name} has pad_token {token!r}: no token is called so")
            return number
    return tokenizer.get_vocab()[clip_tokenizer.END]


def run_config(family: str, **sections: Any) -> Any:
    """Return the config of a run: these sections, and the defaults of all other fields. Locked."""
    given = {**configs.base().to_dict(), "family": family, **sections}
    return ConfigDict(complete(given)[0]).lock()


def plain(net: Any) -> dict[str, Any]:
    """Return the fields of a network as a config has them."""
    skipped = ("parent", "name", "dtype", "remat")
    fields = {name: getattr(net, name) for name in type(net).__dataclass_fields__}
    return {name: value for name, value in fields.items() if name not in skipped}


def read_arrays(folder: Path, stem: str, read: Callable, net: Any, dtype: str) -> Any:
    """Return the parameters of `net` from the weight files of a folder.

    stem: the start of their names.
    read: (arrays, net, source, dtype) -> parameters.
    """
    arrays: StoredArrays = open_folder(folder, stem)
    return read(arrays, net, str(folder), jnp.dtype(dtype))


def part_of(folder: Path, name: str) -> Path:
    """Return the folder of a part. Raises FileNotFoundError, naming it, if it is not there."""
    if not (folder / name).is_dir():
        raise FileNotFoundError(f"{folder} has no {name}/: a published pipeline has that part")
    return folder / name


def leaves_out(folder: Path, name: str) -> bool:
    """Return whether model_index.json says that the pipeline has no such part: [null, null]."""
    return read_json(folder / "model_index.json").get(name) == [None, None]
