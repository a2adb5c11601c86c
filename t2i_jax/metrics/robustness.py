"""How much a score loses when what goes in is noisy: captions with slips of the pen, pictures with grain, JPEG or blur.

What is made of the noisy input is scored against the clean one: a picture drawn from a misspelt caption should show what
was meant. A noise is a pure function (inputs, seed) -> inputs; that of the input at place i depends on (seed, i) alone.
"""

import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from t2i_jax.data import shapes
from t2i_jax.metrics.alignment import can_score

ARTICLES = ("a", "an", "the")


def typo(caption: str, rng: np.random.Generator) -> str:
    """One slip in one word of at least four letters: two letters swapped, one dropped or one doubled."""
    words = [m.span() for m in re.finditer(r"[^\W\d_]{4,}", caption)]
    if not words:
        return caption
    start, end = words[rng.integers(len(words))]
    word, kind = caption[start:end], rng.integers(3)
    i = int(rng.integers(1, len(word) - 1))  # the first letter stays, as it mostly does
    if kind == 0 and word[i] != word[i + 1]:
        word = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    elif kind == 1:
        word = word[:i] + word[i + 1 :]
    else:  # also where a swap would change nothing
        word = word[: i + 1] + word[i:]
    return caption[:start] + word + caption[end:]


def swap_words(caption: str, rng: np.random.Generator) -> str:
    """One pair of neighbouring words, not alike, changes places."""
    words = caption.split()
    places = [i for i in range(len(words) - 1) if words[i] != words[i + 1]]
    if not places:
        return caption
    i = places[rng.integers(len(places))]
    return " ".join([*words[:i], words[i + 1], words[i], *words[i + 2 :]])


def drop_articles(caption: str, rng: np.random.Generator) -> str:
    """Without "a", "an" and "the"; as it was if nothing would be left."""
    return " ".join(word for word in caption.split() if word.lower() not in ARTICLES) or caption


def synonyms(caption: str, rng: np.random.Generator) -> str:
    """A caption of `shapes` in the words of its paraphrases; any other as it is."""
    return shapes.paraphrase(caption, rng) if can_score([caption]) else caption


def upper_case(caption: str, rng: np.random.Generator) -> str:
    """IN CAPITALS."""
    return caption.upper()


def random_case(caption: str, rng: np.random.Generator) -> str:
    """eACh LEttEr UpPEr oR loWEr case."""
    capital = rng.random(len(caption)) < 0.5
    return "".join(c.upper() if up else c.lower() for c, up in zip(caption, capital, strict=True))


def grain(picture: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Gaussian noise of standard deviation `sigma` levels (of 255), rounded and clipped."""
    return np.clip(np.rint(picture + rng.normal(0, sigma, picture.shape)), 0, 255).astype(np.uint8)


def jpeg(picture: np.ndarray, rng: np.random.Generator, quality: int) -> np.ndarray:
    """As it comes back from a JPEG file of that quality (1 to 95), colours at half resolution as files commonly have them."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))


def blur(picture: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    """A Gaussian blur of `sigma` pixels; the border is mirrored."""
    return np.rint(ndimage.gaussian_filter(picture.astype(np.float64), (sigma, sigma, 0))).astype(np.uint8)


def _each(noise: Callable, inputs: Sequence, seed: int):
    changed = [noise(x, np.random.default_rng((seed, i))) for i, x in enumerate(inputs)]
    return np.stack(changed) if isinstance(inputs, np.ndarray) else changed


NOISES = {
    noise.__name__: functools.partial(_each, noise)
    for noise in (typo, swap_words, drop_articles, synonyms, upper_case, random_case)
}
PICTURE_NOISES = {
    "grain_8": functools.partial(_each, functools.partial(grain, sigma=8.0)),
    "grain_32": functools.partial(_each, functools.partial(grain, sigma=32.0)),
    "jpeg_30": functools.partial(_each, functools.partial(jpeg, quality=30)),
    "blur_1": functools.partial(_each, functools.partial(blur, sigma=1.0)),
}


def score_under_noise(
    act: Callable, inputs: Sequence, score: Callable, seed: int = 0, noises: Mapping[str, Callable] = NOISES
) -> dict:
    """{"clean": report, noise: report, ...}, each score(act(noisy inputs), clean inputs).

    act: captions -> pictures (or pictures -> pictures, with PICTURE_NOISES).   noises: {name: (inputs, seed) -> inputs}.
    A noise that changes none of the inputs is left out (synonyms, where captions are not those of `shapes`).
    Raises ValueError if there are no inputs.
    """
    if not len(inputs):
        raise ValueError("there is nothing to put noise on: give at least one caption or picture")
    reports = {"clean": score(act(inputs), inputs)}
    for name, noise in noises.items():
        noisy = noise(inputs, seed)
        if not np.array_equal(noisy, inputs):
            reports[name] = score(act(noisy), inputs)
    return reports


def reconstruction_under_noise(reconstruct: Callable, pictures: np.ndarray, score: Callable, seed: int = 0) -> dict[str, float]:
    """{"clean": mean score, noise: mean score, ...} of what `reconstruct` makes of noisy pictures, uint8 [N, H, W, 3].

    score: (reconstructed, clean pictures) -> [N], such as similarity.psnr.
    """
    return score_under_noise(reconstruct, pictures, lambda *pair: float(np.mean(score(*pair))), seed, PICTURE_NOISES)
