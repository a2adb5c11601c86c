"""A picture file that a run drew, and what it says of how it was drawn, checked before use."""

from pathlib import Path

import numpy as np
from PIL import Image

from t2i_jax import config as configs
from t2i_jax.config.checks import what_is_right
from t2i_jax.core.arguments import MAX_SEED
from t2i_jax.core.fields import Field
from t2i_jax.core.progress import unheard, watch
from t2i_jax.core.registry import did_you_mean
from t2i_jax.data.pictures import FORMATS
from t2i_jax.data.provenance import read_metadata, with_metadata

MAX_BATCH = 64  # the most examples that are ever computed at once
ENTRIES = {  # of the metadata
    "prompt": Field("", "what was drawn"),
    "seed": Field(0, "the seed", 0, MAX_SEED),
    "index": Field(0, "the place among all pictures of its call", 0, 2**31 - 1),
    "row": Field(0, "the place in its batch", 0, MAX_BATCH - 1),
    "batch": Field(4, "the size of its batch", 1, MAX_BATCH),
    "settings": Field({}, "the settings of drawing"),
    "weights": Field("", "the hash of the weights"),
    "config": Field({}, "the config of the run"),
}
OPTIONAL = {
    "watched": Field(False, "whether its steps were watched (core/progress.py)"),
    "expansion": Field({}, "the prompt before, and the language model and seed that rewrote it"),
}
REDRAWN = "ability"  # only a picture that was made of another one has this entry


def read_drawn(path) -> tuple[dict, np.ndarray]:
    """Read a picture that a pipeline drew: (its metadata, its pixels).

    Raises FileNotFoundError if there is none, and ValueError, naming the file, if it is damaged,
    has no metadata, was made of another one, or says something that no pipeline writes.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no picture {path}: name a PNG file that was drawn by this run")
    try:
        with Image.open(path, formats=FORMATS) as image:
            pixels, info = np.asarray(image), dict(image.info)
    except Exception as error:  # Pillow and its decoders raise many kinds for broken bytes
        reason = str(error).partition("\n")[0].replace(f" {str(path)!r}", "")
        raise ValueError(f"{path}: not a readable picture ({reason}): name a PNG file") from error
    told = read_metadata(path, info)
    if REDRAWN in told:
        done = {"edit": "edited", "vary": "varied"}.get(told[REDRAWN], "inpainted")
        raise ValueError(f"{path} was {done}: its file does not hold the picture before")
    if wrong := what_is_wrong(told):
        raise ValueError(f"{path}: {wrong}")
    return told, pixels


def what_is_wrong(told: dict) -> str:
    """Return what is wrong in the metadata of a picture, and what would be right, or ""."""
    known = {**ENTRIES, **OPTIONAL}
    for name in told:
        if name not in known:
            hint = did_you_mean(name, known) or f": metadata has {', '.join(ENTRIES)}"
            return f"its metadata has an unknown entry {name!r:.40}{hint}"
    for name, field in known.items():
        if name not in told:
            if name in OPTIONAL:
                continue
            return f"its metadata has no {name!r} ({field.meaning})"
        if right := what_is_right(told[name], field):
            said = f"{told[name]!r:.40}"
            return f"{name!r} in its metadata is {said}: it must be {right} ({field.meaning})"
    row = told["row"]
    if row >= told["batch"] or row > told["index"]:
        return f"'row' in its metadata is {row}: it is less than 'batch', and at most 'index'"
    return ""


def draw_again(pipe, path) -> tuple[Image.Image, bool]:
    """Draw the picture of a file again; see `Pipeline.redraw`. pipe: a Pipeline."""
    told, before = read_drawn(path)
    if told["weights"] != pipe.weights:
        raise ValueError(
            f"{path} was drawn by the weights {told['weights']}; these are {pipe.weights}"
        )
    size, row = told["batch"], told["row"]
    captions, index = [""] * size, np.arange(size) + told["index"] - row
    captions[row] = told["prompt"]
    try:
        config_then = configs.migrate(told["config"])
        for section, did in (("reranker", "chosen"), ("prior", "drawn")):
            asked = config_then.get(section, {}).get("run", "")
            if asked != (here := pipe.config.get(section, {}).get("run", "")):
                raise ValueError(
                    f"was {did} with config.{section}.run={asked!r}, and here it is {here!r}"
                )
        with watch(unheard if told.get("watched") else None):
            drawn = pipe.draw_rows(captions, index, told["seed"], **told["settings"])
    except ValueError as error:
        raise ValueError(f"{path}, by its metadata: {error}") from error
    image = with_metadata(Image.fromarray(drawn[row]), told)
    return image, np.array_equal(before, np.asarray(image))
