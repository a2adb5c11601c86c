"""How much does a score lose under noisy inputs: captions with typos, pictures with grain or blur?

The output for a noisy input is scored against the clean input: a picture drawn from a misspelt
caption should show what was meant. A noise is a pure function (inputs, seed) -> inputs. The noise
of the input at position i depends on (seed, i) only.
"""

import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage

from t2i_jax.data import shapes
from t2i_jax.metrics.alignment import can_score

ARTICLES = ("a", "an", "the")
Inputs = Sequence | UInt8[np.ndarray, "N H W 3"]  # captions, or pictures


def typo(caption: str, rng: np.random.Generator) -> str:
    """Make one typo in one word of at least four letters.

    Two neighbouring letters are swapped, or one letter is dropped or doubled.
    """
    words = [m.span() for m in re.finditer(r"[^\W\d_]{4,}", caption)]
    if not words:
        return caption
    start, end = words[rng.integers(len(words))]
    word, kind = caption[start:end], rng.integers(3)
    i = int(rng.integers(1, len(word) - 1))  # real typos seldom change the first letter
    if kind == 0 and word[i] != word[i + 1]:
        word = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    elif kind == 1:
        word = word[:i] + word[i + 1 :]
    else:  # also where a swap would change nothing
        word = word[: i + 1] + word[i:]
    return caption[:start] + word + caption[end:]


def swap_words(caption: str, rng: np.random.Generator) -> str:
    """Swap one pair of different neighbouring words."""
    words = caption.split()
    places = [i for i in range(len(words) - 1) if words[i] != words[i + 1]]
    if not places:
        return caption
    i = places[rng.integers(len(places))]
    return " ".join([*words[:i], words[i + 1], words[i], *words[i + 2 :]])


def drop_articles(caption: str, rng: np.random.Generator) -> str:
    """Drop "a", "an" and "the". A caption without other words is kept as it is."""
    return " ".join(word for word in caption.split() if word.lower() not in ARTICLES) or caption


def synonyms(caption: str, rng: np.random.Generator) -> str:
    """Paraphrase a caption of `shapes`. Any other caption is kept as it is."""
    return shapes.paraphrase(caption, rng) if can_score([caption]) else caption


def upper_case(caption: str, rng: np.random.Generator) -> str:
    """WRITE IN CAPITALS."""
    return caption.upper()


def random_case(caption: str, rng: np.random.Generator) -> str:
    """wRITe eACh LEttEr in UpPEr oR loWEr case."""
    capital = rng.random(len(caption)) < 0.5
    return "".join(c.upper() if up else c.lower() for c, up in zip(caption, capital, strict=True))


def grain(
    picture: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator, sigma: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Add Gaussian noise of standard deviation `sigma` (in levels of 255), rounded and clipped."""
    return np.clip(np.rint(picture + rng.normal(0, sigma, picture.shape)), 0, 255).astype(np.uint8)


def jpeg(
    picture: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator, quality: int
) -> UInt8[np.ndarray, "H W 3"]:
    """Compress as a JPEG file of that quality (1 to 95), with colours at half resolution."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))


def blur(
    picture: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator, sigma: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Blur with a Gaussian of `sigma` pixels. The border is mirrored."""
    blurred = ndimage.gaussian_filter(picture.astype(np.float64), (sigma, sigma, 0))
    return np.rint(blurred).astype(np.uint8)


def _each(noise: Callable, inputs: Inputs, seed: int):
    """Apply `noise` to each input, with a random generator of its own."""
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
    act: Callable,
    inputs: Inputs,
    score: Callable,
    seed: int = 0,
    noises: Mapping[str, Callable] = NOISES,
) -> dict:
    """Return {"clean": report, noise: report, ...}: score(act(noisy inputs), clean inputs).

    act: captions -> pictures, or pictures -> pictures with PICTURE_NOISES.
    noises: {name: (inputs, seed) -> inputs}. A noise that changes none of the inputs is left out,
        such as synonyms for captions that are not those of `shapes`.

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


def reconstruction_under_noise(
    reconstruct: Callable,
    pictures: UInt8[np.ndarray, "N H W 3"],
    score: Callable[..., Float[np.ndarray, "N"]],
    seed: int = 0,
) -> dict[str, float]:
    """Return {"clean": mean score, noise: mean score, ...} of reconstructions of noisy pictures.

    score: (reconstructed, clean pictures) -> [N], such as similarity.psnr.
    """
    return score_under_noise(
        reconstruct, pictures, lambda *pair: float(np.mean(score(*pair))), seed, PICTURE_NOISES
    )
