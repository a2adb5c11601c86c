"""The pictures that are measured and shown: what a model draws from captions, or reconstructs."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool, UInt8
from tqdm import tqdm

from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.core.random import keys_at
from t2i_jax.data.degradation import enlarge
from t2i_jax.families.superresolution import degrade
from t2i_jax.pipeline import Pipeline
from t2i_jax.runs.batches import run_ability, run_in_batches, split_static
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.prompts import prompt_inputs


def draw(
    pipe: Pipeline, captions: Sequence[str], seed: int, title: str = "drawing"
) -> UInt8[np.ndarray, "N H W 3"]:
    """Draw one picture for each caption.

    Picture i has the random key of (seed, i), whatever the batch.
    title: of the progress bar.
    """
    # One batch size means one compiled program; for a few captions, a smaller power of two.
    size, images = min(pipe.config.evaluate.batch, 1 << (len(captions) - 1).bit_length()), []
    pipe.warn_if_cut(captions)
    batches = range(0, len(captions), size)
    for first in tqdm(batches, desc=title, unit="batch", leave=False, disable=None):
        part = list(captions[first : first + size])
        padded = part + [""] * (size - len(part))
        images.append(pipe.draw_rows(padded, first + np.arange(size), seed)[: len(part)])
    return np.concatenate(images)


def reconstruct(
    pipe: Pipeline, captions: Sequence[str], images: UInt8[np.ndarray, "N H W 3"]
) -> UInt8[np.ndarray, "N H W 3"]:
    """Reconstruct `images` with the model, conditioned on the first N `captions`."""
    text, _ = tokenizers.encode(pipe.tokenizer, captions[: len(images)], pipe.config.text.length)
    inputs = {"image": images, "text": {pipe.config.text.encoder: text}}
    return _in_batches(pipe, "reconstruct", inputs)


def upscale(
    pipe: Pipeline, images: UInt8[np.ndarray, "N H W 3"], seed: int
) -> UInt8[np.ndarray, "N H W 3"]:
    """Make pictures small as in training, and enlarge them again with the model."""
    return _in_batches(pipe, "upscale", {"image": made_small(pipe, images, seed)})


def translate(
    pipe: Pipeline, images: UInt8[np.ndarray, "N H W 3"], direction: str
) -> UInt8[np.ndarray, "N H W 3"]:
    """Translate pictures with the model, "forward" or "backward"."""
    return _in_batches(pipe, "translate", {"image": images}, (("direction", direction),))


def stylize(pipe: Pipeline, images: UInt8[np.ndarray, "N H W 3"]) -> UInt8[np.ndarray, "N H W 3"]:
    """Draw each picture in the style of the next one, and the last in that of the first."""
    inputs = {"image": images, "image_b": np.roll(images, -1, axis=0)}
    return _in_batches(pipe, "stylize", inputs, tuple(pipe.settings({}, "stylize").items()))


def inpaint(
    pipe: Pipeline,
    captions: Sequence[str],
    images: UInt8[np.ndarray, "N H W 3"],
    masks: Bool[np.ndarray, "N H W"],
    seed: int,
) -> UInt8[np.ndarray, "N H W 3"]:
    """Draw the masked part of each picture anew, for its caption.

    Picture i has the random key of (seed, i).
    """
    pipe.warn_if_cut(captions)
    settings = pipe.settings({}, "inpaint")
    traced, static = split_static(pipe.family, settings)
    given = {name: settings[name] for name in pipe.family.texts if name in settings}
    null, config = pipe.variables.frozen.get("null_text", {}), pipe.config
    inputs = prompt_inputs(pipe.tokenizer, captions, given, null, config.text)
    inputs |= {"image": images, "mask": masks}
    run = functools.partial(run_ability, pipe.family.abilities["inpaint"], pipe.variables)
    parts = run_in_batches(run, inputs, traced, static, seed, config.evaluate.batch)
    title, total = "inpainting", -(-len(images) // config.evaluate.batch)
    return np.concatenate(
        list(tqdm(parts, desc=title, total=total, unit="batch", leave=False, disable=None))
    )


def made_small(
    pipe: Pipeline, images: UInt8[np.ndarray, "N H W 3"], seed: int
) -> UInt8[np.ndarray, "N h w 3"]:
    """Return the pictures from which `upscale` has to restore `images`.

    Picture i has the random key of (seed, i).
    """
    keys = keys_at(seed, np.arange(len(images)))
    return np.asarray(degrade(images, keys, pipe.config.superresolution))


def enlarged_plainly(
    small: UInt8[np.ndarray, "N h w 3"], scale: int
) -> UInt8[np.ndarray, "N H W 3"]:
    """Return pictures enlarged by bicubic interpolation."""
    return np.asarray(from_unit(enlarge(to_unit(small), scale)))


def _in_batches(pipe: Pipeline, name: str, inputs, static: tuple = ()) -> np.ndarray:
    """Return what the ability `name` makes of inputs, in batches of `evaluate.batch`.

    The last batch is padded, so that one program is compiled.
    static: ((setting, value), ...).
    """
    ability, size = pipe.family.abilities[name], pipe.config.evaluate.batch
    count, parts = len(inputs["image"]), []
    missing = -count % size
    padded = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]), inputs)
    for first in range(0, count, size):
        part = jax.tree.map(lambda x, first=first: x[first : first + size], padded)
        parts.append(np.asarray(_run(ability, static, pipe.variables, part)))
    return np.concatenate(parts)[:count]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(ability, static, variables, inputs):
    return ability(variables, inputs, None, **dict(static))


def make_pictures(
    pipe: Pipeline,
    captions: Sequence[str],
    true: UInt8[np.ndarray, "N H W 3"],
    seed: int,
    title: str = "drawing",
) -> UInt8[np.ndarray, "M H W 3"]:
    """Return the pictures by which a model is measured: drawn ones, else reconstructions.

    A model that enlarges pictures restores the true ones, which are made small for it. One that
    translates pictures translates the true ones, forward; one that takes styles takes each from the
    next picture.
    captions, true: N captions and the pictures that they were written for.
    M is N, or 0 if the model makes no pictures.
    """
    if "sample" in pipe.family.abilities:
        return draw(pipe, captions, seed, title)
    if "reconstruct" in pipe.family.abilities:
        return reconstruct(pipe, captions, true)
    if "upscale" in pipe.family.abilities:
        return upscale(pipe, true, seed)
    if "translate" in pipe.family.abilities:
        return translate(pipe, true, "forward")
    if "stylize" in pipe.family.abilities:
        return stylize(pipe, true)
    return true[:0]


def for_display(
    pipe: Pipeline,
    captions: Sequence[str],
    true: UInt8[np.ndarray, "N H W 3"],
    images: UInt8[np.ndarray, "M H W 3"],
) -> tuple[UInt8[np.ndarray, "N H W2 3"], list[str]]:
    """Return pictures for a contact sheet, and the text beneath each.

    These are the drawn pictures; or the true ones, each with its reconstruction to the right; or
    the true ones with the captions that the model gives them, or chooses for them among `captions`.
    Of a model that enlarges pictures: by bicubic interpolation, by the model, and the true one.
    Of one that translates: the true one, its translation, and what that is translated back to.
    Of one that takes styles: the true one, the style, and the true one in the style.
    images: what `make_pictures` returned for these captions.
    """
    if "sample" in pipe.family.abilities:
        return images, picture_titles(pipe.config, captions)
    if "upscale" in pipe.family.abilities:
        plain = enlarged_plainly(made_small(pipe, true, 0), pipe.config.superresolution.scale)
        return np.concatenate([plain, images, true], axis=2), list(captions)
    if "translate" in pipe.family.abilities:
        back = translate(pipe, images, "backward")
        return np.concatenate([true, images, back], axis=2), list(captions)
    if "stylize" in pipe.family.abilities:
        return np.concatenate([true, np.roll(true, -1, axis=0), images], axis=2), list(captions)
    if len(images):
        return np.concatenate([true, images], axis=2), list(captions)
    if "caption" in pipe.family.abilities:
        return true, pipe.caption(true)
    return true, choose_captions(pipe, captions, true)


def choose_captions(
    pipe: Pipeline, captions: Sequence[str], images: UInt8[np.ndarray, "N H W 3"]
) -> list[str]:
    """Return for each picture the one of `captions` that the model embeds nearest to it."""
    cosine = pipe.embed_image(list(images)) @ pipe.embed_text(list(captions)).T
    return [captions[int(i)] for i in cosine.argmax(1)]


def is_conditional(config) -> bool:
    """Return whether the model is conditioned on its captions, so that they can be measured."""
    return config.text.encoder != "none"


def picture_titles(config, captions: Sequence[str]) -> list[str]:
    """Return the text beneath each drawn picture: its caption, if the model was given it."""
    return list(captions) if is_conditional(config) else ["(unconditional)"] * len(captions)
