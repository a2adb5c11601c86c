"""What every data source gives: captioned pictures with random access.

A source is a module of this folder with one function, `make(config, split) -> Source`, where `config` is `config.data`;
the file name is the registry (`config.data.name = "shapes"` imports `t2i_jax/data/shapes.py`). It prepares what is missing
on first use and is silent and quick afterwards.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from t2i_jax.by_name import make_of


class Source(NamedTuple):
    """A captioned set of pictures; the position of an example is its `index` in every batch.

    captions: one string an example; may be empty (then the example is unconditional).
    read: positions int [N] -> uint8 [N, R, R, 3]. Pure: the same positions give the same bytes.
    fingerprint: sha256 (hex) of everything `captions` and `read` depend on; checkpoints keep it.
    notes: what a person should be told once, a line each ("3 files skipped: ..."); empty when all is well.
    labels: a place in `classes` for each example, where the data has them; else empty.
    classes: the names of the classes.
    variants: {name of an augmentation: the captions of the examples so augmented}, for those that this source knows to keep
        its captions true; `captions` itself where nothing changes. No other augmentation may be used (augmentation.py).
    """

    captions: Sequence[str]
    read: Callable[[np.ndarray], np.ndarray]
    fingerprint: str
    notes: Sequence[str] = ()
    labels: Sequence[int] = ()
    classes: Sequence[str] = ()
    variants: Mapping[str, Sequence[str]] = MappingProxyType({})


def load(config, split: str) -> Source:
    """The source that `config.name` names, at `config.resolution`, for one split ("train", "validation", "test", ...)."""
    return make_of("data", config.name)(config, split)


def data_dir() -> Path:
    """Where prepared data lies: $T2I_JAX_DATA, or ~/.cache/t2i_jax."""
    return Path(os.environ.get("T2I_JAX_DATA") or Path.home() / ".cache" / "t2i_jax")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file or folder of the data folder: it becomes `path` when the block ends, so `path` is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="incomplete-") as folder:
        part = Path(folder) / path.name
        yield part
        if not path.is_dir():  # another process may have been faster
            part.replace(path)


def fingerprint(*parts) -> str:
    """sha256 of the parts' text, in order; bytes are taken as they are."""
    digest = hashlib.sha256()
    for part in parts:
        blob = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(blob).to_bytes(8, "little") + blob)
    return digest.hexdigest()
