"""A trained run: captions in, pictures out, or the other way round. Needs no TensorFlow."""

import dataclasses
import functools
import io
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, PngImagePlugin

from t2i_jax import checkpoint, ranker
from t2i_jax import config as configs
from t2i_jax.by_name import hint
from t2i_jax.data import pictures as files
from t2i_jax.families import family as families
from t2i_jax.features.extractor import rgb
from t2i_jax.run_folder import config_of, read_run, read_variables
from t2i_jax.text import tokenizer as tokenizers

METADATA = "t2i_jax"  # the PNG text chunk, and the key in `Image.info`


class Drawn(NamedTuple):
    """Pictures (PIL, RGB) and the prompt of each; every picture's `info["t2i_jax"]` says how to draw it again."""

    images: list[Image.Image]
    prompts: list[str]

    def save(self, folder) -> list[Path]:
        """Write 000.png, 001.png, ... with their metadata; gives the paths."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        paths = [Path(folder) / f"{i:03d}.png" for i in range(len(self.images))]
        for path, image in zip(paths, self.images, strict=True):
            save_png(image, path)
        return paths


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Weights and what is needed to use them.

    variables: {params, extra, frozen}.   sampler: from `compile_sampler`.   weights: hash of the weights, for metadata.
    """

    config: Any
    family: families.Family
    variables: families.Variables
    tokenizer: Any
    sampler: Callable
    weights: str = ""

    def __call__(self, prompts: str | Sequence[str], num: int = 1, seed: int = 0, **settings) -> Drawn:
        """Draw `num` pictures of each prompt. The same prompts, seed and settings give the same pictures.

        settings: over the defaults of `config.sample`; ValueError if there is no such setting, or the model does not draw.
        """
        families.ability(self.family, "sample")
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        captions = [prompt for prompt in prompts for _ in range(num)]
        if not captions:
            raise ValueError("nothing to draw: give at least one prompt, and num of at least 1")
        settings = self.settings(settings)
        images, places = self.draw(captions, seed, **settings)
        told = {"seed": seed, "settings": settings, "weights": self.weights, "config": self.config.to_dict()}
        drawn = [Image.fromarray(image) for image in images]
        for image, prompt, place in zip(drawn, captions, places, strict=True):
            image.info[METADATA] = json.dumps({"prompt": prompt, **place, **told}, sort_keys=True)
        return Drawn(drawn, captions)

    def draw(self, captions: Sequence[str], seed: int = 0, batch: int = 64, **settings):
        """uint8 [N, H, W, 3], and where each picture stood: {"index", "row", "batch"}; at most `batch` at once."""
        images, places = [], []
        for first in range(0, len(captions), batch):
            part = captions[first : first + batch]
            size = _size(len(part), batch)
            index = first + np.arange(size)
            images.append(self.draw_rows(list(part) + [""] * (size - len(part)), index, seed, **settings)[: len(part)])
            places += [{"index": first + row, "row": row, "batch": size} for row in range(len(part))]
        return np.concatenate(images), places

    def draw_rows(self, captions: Sequence[str], index: np.ndarray, seed: int, **settings) -> np.ndarray:
        """One compiled call: uint8 [N, H, W, 3] of N captions, each with the random key of its `index`."""
        settings = self.settings(settings)
        text, cut = tokenizers.encode(self.tokenizer, captions, self.config.text.length)
        if cut:
            warnings.warn(
                f"{cut} of {len(captions)} captions have more than {self.config.text.length} tokens: cut", stacklevel=2
            )
        inputs = {"text": {self.config.text.encoder: text}}
        return np.asarray(self.sampler(self.variables, inputs, _keys(seed, index), *self._apart(settings)))

    def caption(self, images, num: int = 1, seed: int = 0, batch: int = 64, **settings) -> list[str]:
        """`num` captions of each picture, those of a picture together. The same arguments give the same captions.

        images: one or several of: a path, a Pillow picture, an array of `features.extractor.rgb`; each is cut to its centre
        and resized by `data.pictures.decode`.   settings: over the defaults of `config.caption`.
        Raises ValueError if the model does not caption, for a setting there is not, settings that do not go together, or
        what is no picture; FileNotFoundError for a path where there is none.
        """
        ability, settings = families.ability(self.family, "caption"), self.settings(settings, "caption")
        beams, temperature = settings.get("beams", 1), settings.get("temperature", 0.0)
        if beams < 1:
            raise ValueError(f"beams is {beams}: at least 1")
        if beams > 1 and temperature > 0:
            said = f"beams is {beams} and temperature {temperature}"
            raise ValueError(f"{said}: a search for the likeliest has no chance in it; let temperature be 0, or beams 1")
        if isinstance(images, str | Path | Image.Image) or getattr(images, "ndim", 0) in (2, 3):
            images = [images]
        pictures = [x for image in images for x in [read_picture(image, self.config.data.resolution)] * num]
        if not pictures:
            raise ValueError("nothing to caption: give at least one picture, and num of at least 1")
        captions = []
        for first in range(0, len(pictures), batch):
            part = pictures[first : first + batch]
            size = _size(len(part), batch)
            inputs = {"image": np.stack(part + [np.zeros_like(part[0])] * (size - len(part)))}
            tokens = _compiled(ability, self.variables, inputs, _keys(seed, first + np.arange(size)), *self._apart(settings))
            captions += tokenizers.decode(self.tokenizer, tokens[: len(part)])
        return captions

    def _apart(self, settings: dict) -> tuple[dict, tuple]:
        """Settings that are traced, and those that are compiled in."""
        static = tuple((name, settings[name]) for name in sorted(settings) if name in self.family.static)
        return {name: value for name, value in settings.items() if name not in self.family.static}, static

    def settings(self, given: dict, ability: str = "sample") -> dict:
        """The defaults of `config.sample` (or of another ability), with what was given over them, checked."""
        known = dict(self.family.settings[ability])
        for name, value in given.items():
            if name not in known:
                raise ValueError(f"no setting {name!r}: this model has {', '.join(known)}{hint(name, known)}")
            kind = type(known[name])
            if kind is int and not float(value).is_integer():
                raise ValueError(f"{name} is {value!r}: it is a whole number, such as {known[name]}")
            known[name] = kind(value)
        return known

    def redraw(self, path) -> tuple[Image.Image, bool]:
        """Draw a picture again from its file's metadata; gives it, and whether all its pixels are those of the file.

        Raises ValueError if the file has no metadata, was drawn by other weights or chosen by another ranker.
        """
        told = read_metadata(path)
        if told["weights"] != self.weights:
            raise ValueError(f"{path} was drawn by the weights {told['weights']}; these are {self.weights}")
        if (asked := told["config"].get("ranker", "")) != self.config.ranker:
            raise ValueError(f"{path} was chosen with config.ranker={asked!r}, and here it is {self.config.ranker!r}")
        size, row = told["batch"], told["row"]
        captions, index = [""] * size, np.arange(size) + told["index"] - row
        captions[row] = told["prompt"]
        image = Image.fromarray(self.draw_rows(captions, index, told["seed"], **told["settings"])[row])
        image.info[METADATA] = json.dumps(told, sort_keys=True)
        with Image.open(path) as before:
            return image, np.array_equal(np.asarray(before), np.asarray(image))


def compile_sampler(family: families.Family) -> Callable:
    """sampler(variables, inputs, keys, settings, static): the whole of `sample` as one compiled function.

    That of a family that does not draw raises its ValueError when it is called.
    """

    @functools.partial(jax.jit, static_argnames="static")
    def sampler(variables, inputs, keys, settings, static):
        return families.ability(family, "sample")(variables, inputs, keys, **settings, **dict(static))

    return sampler


@functools.partial(jax.jit, static_argnames=("ability", "static"))
def _compiled(ability, variables, inputs, keys, settings, static):
    return ability(variables, inputs, keys, **settings, **dict(static))


def _keys(seed: int, index: np.ndarray):
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.asarray(index))


def _size(count: int, batch: int) -> int:
    """The batch that `count` examples are filled up to, at most `batch`: a power of two, so that few programs are compiled."""
    return min(batch, 1 << (count - 1).bit_length())


def read_picture(picture, resolution: int) -> np.ndarray:
    """A path, a Pillow picture or an array (see `features.extractor.rgb`) as uint8 [resolution, resolution, 3].

    Raises FileNotFoundError, or ValueError, naming the file, if it cannot be read.
    """
    if not isinstance(picture, str | Path):
        file = io.BytesIO()
        Image.fromarray(rgb(picture)).save(file, "PNG")  # so that there is one way from any picture to pixels
        return files.decode(file.getvalue(), resolution)
    if not Path(picture).is_file():
        raise FileNotFoundError(f"no picture {picture}")
    try:
        return files.decode(picture, resolution)
    except ValueError as error:
        raise ValueError(f"{picture}: {error}") from error


def load(workdir, which: str | int = "last", overrides: Sequence[str] = ()) -> Pipeline:
    """The model of a run folder, ready to use: `load("runs/shapes")("a large red circle").images[0]`.

    which: the checkpoint: "last", "best" (lowest validation loss) or a step. overrides: ("sample.temperature=0.5", ...).
    Raises FileNotFoundError if the folder is not a run, has no such checkpoint, or needs published weights that are not there.
    """
    run = read_run(workdir)
    config = config_of(run)
    configs.override(config, overrides)
    family = families.load(config)
    variables, tokenizer = read_variables(workdir, run, which), tokenizers.load(Path(workdir) / "tokenizer.json")
    frozen = jax.tree.map(jnp.asarray, ranker.add_weights(variables.frozen, config, tokenizer))
    variables = variables._replace(frozen=frozen)
    weights = checkpoint.tree_hash(jax.tree.map(np.asarray, variables.params))
    return Pipeline(config, family, variables, tokenizer, compile_sampler(family), weights)


def save_png(image: Image.Image, path) -> None:
    """Write a picture with the metadata it carries."""
    chunks = PngImagePlugin.PngInfo()
    if METADATA in image.info:
        chunks.add_itxt(METADATA, image.info[METADATA])
        chunks.add_itxt("Description", json.loads(image.info[METADATA])["prompt"])
    image.save(path, pnginfo=chunks)


def read_metadata(path) -> dict:
    """What a picture says of how it was drawn. Raises ValueError if it says nothing."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no picture {path}")
    with Image.open(path) as image:
        if METADATA not in image.info:
            raise ValueError(f"{path} has no {METADATA} metadata: it was not drawn by this program, or was saved again without")
        return json.loads(image.info[METADATA])
