"""A trained run, ready to use: one method for each ability. Needs no TensorFlow."""

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from t2i_jax.config.checks import override_settings
from t2i_jax.convert.load import find_importer
from t2i_jax.core.arguments import MAX_NUM, text_of_each, texts, whole_number
from t2i_jax.core.family import Family, Variables, get_ability
from t2i_jax.core.progress import Listen, watch, watched_inputs
from t2i_jax.core.random import keys_at
from t2i_jax.core.registry import lookup
from t2i_jax.data.pictures import (
    mask_of_each,
    read_masks,
    read_pictures,
    read_whole_pictures,
    size_within,
    widen,
)
from t2i_jax.data.provenance import with_metadata
from t2i_jax.families.captioning import check_caption_settings
from t2i_jax.runs.adapters import add_adapters
from t2i_jax.runs.batches import run_ability, run_in_batches, split_static
from t2i_jax.runs.drawn import Drawn, draw_in_batches
from t2i_jax.runs.drawn_picture import MAX_BATCH, draw_again
from t2i_jax.runs.encoded import check_encoded
from t2i_jax.runs.imagined import imagine
from t2i_jax.runs.published import read_published
from t2i_jax.runs.rewritten import rewritten
from t2i_jax.runs.run_folder import is_run
from t2i_jax.runs.stylized import stylized
from t2i_jax.runs.trained import read_trained
from t2i_jax.runs.upscaled import upscale_each
from t2i_jax.runs.word_maps import WordMaps, of_words
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.prompts import encode_prompts, most_tokens, prompt_inputs
from t2i_jax.text.words import Word, words_of

BATCH = MAX_BATCH  # examples computed at once
MAX_STEPS = 1024  # of a way from one picture to another


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A model and what is needed to use it.

    Images are given as one or several of: a path, a Pillow picture, or an array as
    `data.pictures.rgb` takes it. Each is cut to its central square and resized to the model's
    resolution, or to what `width` and `height` say where there are such settings. Every method
    raises ValueError if the model lacks the ability, for an unknown setting and for what is no
    picture, and FileNotFoundError for a path where there is none.

    weights: the hash of the weights, for metadata.
    """

    config: Any
    family: Family
    variables: Variables
    tokenizer: Any
    weights: str = ""

    def __repr__(self) -> str:
        can = ", ".join(sorted(self.family.abilities))
        return f"<Pipeline of family {self.config.family}: it can {can}; weights {self.weights}>"

    def __call__(
        self,
        prompts: str | Sequence[str],
        num: int = 1,
        seed: int = 0,
        progress: Listen | None = None,
        previews: int = 0,
        explain: bool = False,
        expand: str | None = None,
        **settings,
    ) -> Drawn:
        """Draw `num` pictures of each prompt.

        The same prompts, seed and settings give the same pictures.
        progress: called with a `core.progress.Progress` after each step of a batch of pictures, by
            models that draw by removing noise.
        previews: after how many steps `progress` gets the pictures so far, decoded; 0 for never.
        explain: also give the word maps of each picture (`explain`), and save them beside it.
        expand: what rewrites the prompts first (runs/rewritten.py): "local", or an endpoint's URL.
        settings: override the defaults of `config.sample`.
        """
        get_ability(self.family, "sample")
        num = whole_number("num", num, 1, MAX_NUM)
        prompts = texts("prompts", prompts)
        if not prompts:
            raise ValueError("nothing to draw: give at least one prompt")
        asked = rewritten(self.config.data, prompts, expand, seed)
        asked = [each for each in asked for _ in range(num)]
        captions = [each.prompt for each in asked]
        if explain:
            get_ability(self.family, "explain")
            self._words(captions)  # refuses now what could not be explained after drawing
        settings = self.settings(settings)
        with watch(progress, previews):
            images, places = self.draw(captions, seed, **settings)
        told = {"seed": seed, "settings": settings, **({"watched": True} if progress else {})}
        notes = [{**each.note(), **at, **told} for each, at in zip(asked, places, strict=True)]
        word_maps = self.explain(images, captions) if explain else ()
        return Drawn(self._with_metadata(images, notes), captions, word_maps)

    def explain(self, images, captions: str | Sequence[str]) -> list[WordMaps]:
        """Return which part of each picture belongs to which word of its caption.

        captions: one for each picture, or one for all.
        Raises ValueError for a caption without a word.
        """
        ability, pictures = get_ability(self.family, "explain"), self._read(images, "explain")
        captions = text_of_each("captions", captions, len(pictures))
        self.warn_if_cut(captions)
        words, inputs = self._words(captions), {"image": pictures, "text": self._text(captions)}
        return list(map(of_words, pictures, words, self._whole(ability, inputs, seed=0)))

    def edit(
        self,
        prompt: str,
        images,
        num: int = 1,
        seed: int = 0,
        progress: Listen | None = None,
        previews: int = 0,
        **settings,
    ) -> Drawn:
        """Redraw each image, `num` times, to fit the prompt.

        progress, previews: as in `__call__`.
        settings: override the defaults of `config.sample` and `config.edit`.
        """
        settings = self.settings(settings, "edit")
        inputs = {"image": read_pictures(images, "edit", *self._size(settings))}
        return self._redraw("edit", prompt, inputs, num, seed, settings, progress, previews)

    def inpaint(
        self,
        prompt: str,
        images,
        masks,
        num: int = 1,
        seed: int = 0,
        progress: Listen | None = None,
        previews: int = 0,
        **settings,
    ) -> Drawn:
        """Draw a part of each image anew, `num` times, to fit the prompt.

        masks: bool [H, W] or [N, H, W] of the size that is drawn, or pictures, in which the part to
            draw is white. All other pixels stay as they are.
        progress, previews: as in `__call__`.
        settings: override the defaults of `config.sample` and `config.inpaint`.
        """
        settings = self.settings(settings, "inpaint")
        size = self._size(settings)
        pictures, masks = read_pictures(images, "inpaint", *size), read_masks(masks, *size)
        inputs = {"image": pictures, "mask": mask_of_each(masks, len(pictures))}
        return self._redraw("inpaint", prompt, inputs, num, seed, settings, progress, previews)

    def outpaint(
        self,
        prompt: str,
        images,
        top: int = 0,
        bottom: int = 0,
        left: int = 0,
        right: int = 0,
        **more,
    ) -> Drawn:
        """Draw margins of so many pixels around each image, to fit the prompt.

        The image is resized to what the margins leave of the size that is drawn (`height` and
        `width`). Its pixels stay as they are.
        more: further arguments and settings of `inpaint`.
        Raises ValueError also for margins that leave nothing.
        """
        known = {k: v for k, v in more.items() if k in ("height", "width")}
        size = self._size(self.settings(known, "inpaint"))
        inner = size_within(*size, top=top, bottom=bottom, left=left, right=right)
        pictures, mask = widen(read_pictures(images, "outpaint", *inner), top, bottom, left, right)
        return self.inpaint(prompt, pictures, mask, **more)

    def vary(self, images, num: int = 1, seed: int = 0, **settings) -> Drawn:
        """Draw variations of each image, from its embedding. settings: of `config.vary` too."""
        settings = self.settings(settings, "vary")
        return self._redraw("vary", "", {"image": self._read(images, "vary")}, num, seed, settings)

    def _redraw(self, name, prompt, inputs, num, seed, settings, progress=None, previews=0):
        num = whole_number("num", num, 1, MAX_NUM)
        inputs = {key: np.repeat(value, num, axis=0) for key, value in inputs.items()}
        self.warn_if_cut(texts("prompt", prompt))
        inputs |= self._texts(prompts := [prompt] * len(inputs["image"]), settings)
        with watch(progress, previews):
            drawn = self._whole(self.family.abilities[name], inputs, settings, seed)
        told = {"prompt": prompt, "seed": seed, "settings": settings, "ability": name}
        return Drawn(self._with_metadata(drawn, [told] * len(drawn)), prompts)

    def caption(self, images, num: int = 1, seed: int = 0, batch: int = BATCH, **settings):
        """Return `num` captions of each picture, list[str], those of a picture together.

        settings: override the defaults of `config.caption`. Raises ValueError if they conflict.
        """
        ability = get_ability(self.family, "caption")
        settings = self.settings(settings, "caption")
        check_caption_settings(settings)
        num = whole_number("num", num, 1, MAX_NUM)
        inputs = {"image": np.repeat(self._read(images, "caption"), num, axis=0)}
        parts = self._run(ability, inputs, settings, seed, batch)
        return [text for tokens in parts for text in tokenizers.decode(self.tokenizer, tokens)]

    def imagine(self, num: int = 1, seed: int = 0, **settings) -> Drawn:
        """Draw `num` pictures of nothing given, with a caption for each (runs/imagined.py)."""
        return imagine(self, num, seed, settings)

    def reconstruct(self, images, prompts: Sequence[str] | str = "") -> list[Image.Image]:
        """Encode pictures and decode them again. Prompts condition a model that is conditional."""
        ability = get_ability(self.family, "reconstruct")
        pictures = self._read(images, "reconstruct")
        captions = text_of_each("prompts", prompts, len(pictures))
        self.warn_if_cut(captions)
        return self._pictures(ability, {"image": pictures, "text": self._text(captions)})

    def encode(self, images) -> np.ndarray:
        """Encode pictures to codes int32 [N, L] or latents float32 [N, ...]."""
        ability = get_ability(self.family, "encode")
        return self._whole(ability, {"image": self._read(images, "encode")})

    def decode(self, encoded: np.ndarray) -> list[Image.Image]:
        """Decode what `encode` returned to pictures. Raises ValueError for what it cannot be."""
        ability, encoded = get_ability(self.family, "decode"), np.asarray(encoded)
        side, encode = self.config.data.resolution, get_ability(self.family, "encode")
        check_encoded(encoded, encode, self.variables, side)
        name = "codes" if encoded.dtype.kind == "i" else "latent"
        return self._pictures(ability, {name: encoded})

    def upscale(self, images, seed: int = 0) -> list[Image.Image]:
        """Enlarge pictures in tiles, each whole and of its own size (runs/upscaled.py)."""
        run = functools.partial(run_ability, get_ability(self.family, "upscale"), self.variables)
        return upscale_each(run, read_whole_pictures(images, "upscale"), seed)

    def translate(self, images, **settings) -> list[Image.Image]:
        """Translate pictures to the other set. settings: `direction`, "forward" or "backward"."""
        ability = get_ability(self.family, "translate")
        settings = self.settings(settings, "translate")
        return self._pictures(ability, {"image": self._read(images, "translate")}, settings)

    def stylize(self, images, style, **settings) -> list[Image.Image]:
        """Draw pictures, each in its own size, in the style of another. settings: `strength`."""
        settings = self.settings(settings, "stylize")
        return stylized(self.family, self.variables, images, style, settings)

    def embed_image(self, images) -> np.ndarray:
        """Return vectors of unit length of pictures, float32 [N, D].

        Their products with those of `embed_text` are the cosines of pictures and captions.
        """
        ability = get_ability(self.family, "embed_image")
        return self._whole(ability, {"image": self._read(images, "embed")})

    def embed_text(self, captions: str | Sequence[str], seed: int = 0) -> np.ndarray:
        """Return vectors of unit length of captions, float32 [N, D]; a prior draws them."""
        ability = get_ability(self.family, "embed_text")
        if not (captions := texts("captions", captions)):
            raise ValueError("nothing to embed: give at least one caption")
        self.warn_if_cut(captions)
        return self._whole(ability, {"text": self._text(captions)}, seed=seed)

    def interpolate(self, first, last, seed: int = 0, **settings) -> list[Image.Image]:
        """Return `steps` pictures on the way from one picture to another, both included."""
        ability = get_ability(self.family, "interpolate")
        settings = self.settings(settings, "interpolate")
        whole_number("steps", settings["steps"], 2, MAX_STEPS)
        ends = {"image": first, "image_b": last}
        inputs = {name: self._read(image, "interpolate")[:1] for name, image in ends.items()}
        return list(map(Image.fromarray, next(self._run(ability, inputs, settings, seed))[0]))

    def draw(self, captions: Sequence[str], seed: int = 0, batch: int = BATCH, **settings):
        """Draw a picture of each caption, at most `batch` at once.

        Returns uint8 [N, H, W, 3], and where each stood: {"index", "row", "batch"}.
        """
        self.warn_if_cut(captions)
        return draw_in_batches(functools.partial(self.draw_rows, **settings), captions, seed, batch)

    def draw_rows(
        self, captions: Sequence[str], index: np.ndarray, seed: int, count: int = 0, **settings
    ) -> np.ndarray:
        """Draw N captions in one compiled call: uint8 [N, H, W, 3].

        index: int [N]; each caption has the random key of its index.
        count: how many of the captions are no padding; 0 for all.
        """
        settings = self.settings(settings)
        traced, static = split_static(self.family, settings)
        inputs = self._texts(captions, settings)
        inputs |= watched_inputs(len(captions), count or len(captions))
        ability, keys = get_ability(self.family, "sample"), keys_at(seed, index)
        return np.asarray(run_ability(ability, self.variables, inputs, keys, traced, static))

    def warn_if_cut(self, prompts: Sequence[str]) -> None:
        """Warn, once for all of them, of prompts with more tokens than are read."""
        if cut := encode_prompts(self.tokenizer, [*dict.fromkeys(prompts)], self.config.text)[1]:
            told = f"{cut} prompt{'s have' if cut > 1 else ' has'} more than"
            told += f" {most_tokens(self.config.text)} tokens: cut (an unknown word is several)"
            warnings.warn(told, stacklevel=4)

    def settings(self, given: dict, ability: str = "sample") -> dict:
        """Return the defaults of an ability, overridden by `given`, each of its default's type."""
        get_ability(self.family, ability)
        sections = lookup("families", self.config.family, "fields")(self.config)
        fields = {**sections.get("sample", {}), **sections.get(ability, {})}
        return override_settings(self.family.settings[ability], given, fields)

    def redraw(self, path) -> tuple[Image.Image, bool]:
        """Draw a picture again from its file's metadata.

        Returns it, and whether all its pixels are those of the file. Raises ValueError if the file
        has no metadata or wrong metadata, or was drawn by other weights, chosen by another reranker
        or made of another picture.
        """
        return draw_again(self, path)

    def with_lora(self, adapters: str) -> "Pipeline":
        """Return this model with adapters added, named as in `lora.add`. It compiles nothing."""
        config, variables, weights = add_adapters(self.config, self.variables, adapters)
        return dataclasses.replace(self, config=config, variables=variables, weights=weights)

    def _pictures(self, ability, inputs: dict, settings=None) -> list[Image.Image]:
        return list(map(Image.fromarray, self._whole(ability, inputs, settings)))

    def _whole(self, ability, inputs: dict, settings=None, seed=None) -> np.ndarray:
        return np.concatenate(list(self._run(ability, inputs, settings, seed)))

    def _run(self, ability, inputs: dict, settings=None, seed=None, batch: int = BATCH) -> Iterator:
        """Yield an ability's results; see `runs.batches.run_in_batches`."""
        traced, static = split_static(self.family, settings or {})
        run = functools.partial(run_ability, ability, self.variables)
        return run_in_batches(run, inputs, traced, static, seed, batch)

    def _text(self, captions: Sequence[str]) -> dict:
        return encode_prompts(self.tokenizer, captions, self.config.text)[0]

    def _words(self, captions: Sequence[str]) -> list[list[Word]]:
        return [words_of(self.tokenizer, text, self.config.text.length) for text in captions]

    def _texts(self, captions: Sequence[str], settings: dict) -> dict:
        """The captions, and the settings that are captions, as inputs of an ability."""
        null = self.variables.frozen.get("null_text", {})
        given = {name: settings[name] for name in self.family.texts if name in settings}
        emphasis = settings.get("emphasis", False)
        return prompt_inputs(self.tokenizer, captions, given, null, self.config.text, emphasis)

    def _read(self, images, purpose: str) -> np.ndarray:
        """Pictures as uint8 [N, R, R, 3]."""
        return read_pictures(images, purpose, self.config.data.resolution)

    def _size(self, settings: dict) -> tuple[int, int]:
        """The height and width of what is drawn."""
        side = self.config.data.resolution
        return settings.get("height", side), settings.get("width", side)

    def _with_metadata(self, images: np.ndarray, notes: Sequence[dict]) -> list[Image.Image]:
        model = {"weights": self.weights, "config": self.config.to_dict()}
        both = zip(images, notes, strict=True)
        return [with_metadata(Image.fromarray(image), {**note, **model}) for image, note in both]


def load(
    workdir, checkpoint: str | int = "last", overrides: Sequence[str] = (), dtype: str = "float32"
) -> Pipeline:
    """Load the model of a run folder: `load("runs/shapes")("a large red circle").images[0]`.

    workdir: the run folder, or the folder of a published pipeline (convert/diffusers.py).
    checkpoint: "last", "best" (lowest validation loss) or a step.
    overrides: ("sample.temperature=0.5", ...).
    dtype: of the parameters of a published pipeline, and of what is computed with them: "float32",
        "bfloat16" or "float16".
    Raises FileNotFoundError if the folder is not a run, has no such checkpoint, or needs published
    weights that are not there; ValueError for a published model that draws nothing by itself, and
    for an override that can only be set in training.
    """
    if not is_run(workdir) and (importer := find_importer(workdir)):
        if importer.read:
            return Pipeline(*read_published(importer.read, texts("overrides", overrides), dtype))
        raise ValueError(
            f"{workdir} is {importer.what}: it draws nothing by itself, but a run can start from "
            f"it (--config.init_from={workdir})"
        )
    if dtype != "float32":
        raise ValueError(f"{workdir} is a run, which has a dtype of its own: leave out dtype")
    return Pipeline(*read_trained(workdir, checkpoint, texts("overrides", overrides)))
