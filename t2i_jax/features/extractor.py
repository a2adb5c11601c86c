"""Feature extractors: networks that turn pictures into numbers, which metrics compare.

Each extractor is a module of this folder with one function, `make(path) -> Extractor`. The file
name is the registry: `load("efficientnet_lite0")` calls `make` of features/efficientnet_lite0.py.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from t2i_jax.core.registry import lookup
from t2i_jax.data import pictures as files


class Extractor(NamedTuple):
    """A network that describes pictures by numbers.

    name: the label of the numbers, as in "KID (EfficientNet-Lite0)".
    rule: resize and normalisation in words. Printed with every number.
    weights: a tree of arrays, the first argument of `apply`.
    apply: (weights, pictures uint8 [B, H, W, 3]) -> {"features": float32 [B, D]}, and where the
        network has them "logits": float32 [B, C] and "maps": [float32 [B, h, w, c], ...]. It is
        pure, resizes the pictures, and handles each one independently.
    fid: whether this is Inception-v3 in the FID variant. Only then is a Frechet distance FID.
    embed_text: captions -> float32 [N, D] of unit length in the space of the features. None if the
        network has no text tower.
    """

    name: str
    rule: str
    weights: Any
    apply: Callable
    fid: bool = False
    embed_text: Callable | None = None


def load(name: str, path: str = "") -> Extractor:
    """Return the extractor `name`.

    path: its weight file. By default, the one that `main.py prepare --weights=NAME` fetched.
    """
    return lookup("features", name)(path)


def extract(
    extractor: Extractor,
    pictures: Iterable,
    batch: int = 64,
    devices=None,
    keys: tuple[str, ...] = ("features", "logits"),
) -> Iterator[dict[str, Any]]:
    """Run the network on a stream of pictures; yield its outputs, batch by batch, in their order.

    The outputs are NumPy arrays.

    pictures: an iterable of single pictures [H, W] or [H, W, 1..4] (see `rgb` of
        data/pictures.py) and of arrays of them [n, H, W, 1..4], all of one size. Never more than
        one batch is read ahead.
    batch: pictures at a time, rounded up to a multiple of the number of devices. The last batch is
        filled up with black pictures, so that one program is compiled; their outputs are dropped.
    devices: share each batch. Default: all local ones.
    keys: which outputs of `apply` to return, if they exist. "maps" are large.

    Raises ValueError if a picture is of another kind, or of another size than the first.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}, it needs to be 1 or more")
    mesh = Mesh(np.asarray(devices or jax.local_devices()), ("batch",))
    split = NamedSharding(mesh, PartitionSpec("batch"))
    weights = jax.device_put(extractor.weights, NamedSharding(mesh, PartitionSpec()))
    run = _program(extractor.apply, tuple(keys))
    batch = -(-batch // mesh.size) * mesh.size
    stream = _singles(pictures)
    while block := list(itertools.islice(stream, batch)):
        real = slice(len(block))
        block += [np.zeros_like(block[0])] * (batch - len(block))
        out = jax.device_get(run(weights, jax.device_put(np.stack(block), split)))
        yield {
            key: [x[real] for x in value] if isinstance(value, list) else value[real]
            for key, value in out.items()
        }


def read_folder(folder: str | Path, resolution: int) -> Iterator[np.ndarray]:
    """Yield all pictures of a folder and its subfolders, in the order of their names.

    Each is uint8 [resolution, resolution, 3]. They are decoded one at a time, when they are needed,
    by `t2i_jax.data.pictures.decode`: a picture that is not square is cut to its centre, and one of
    another size is resized with Lanczos.

    Raises FileNotFoundError if there is no such folder, ValueError if it has no pictures, and,
    naming the file, if one cannot be read.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    names = sorted(
        file.relative_to(folder)
        for file in folder.rglob("*")
        if file.suffix.lower() in files.SUFFIXES
    )
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not names:
        raise ValueError(
            f"{folder} has no pictures: they end in {', '.join(sorted(files.SUFFIXES))}"
        )
    return (_decoded(folder / name, resolution) for name in names)


def _decoded(path, resolution):
    try:
        return files.decode(path, resolution)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


@functools.lru_cache(maxsize=8)
def _program(apply, keys):
    """Return one compiled program for each network and choice of outputs, for all calls."""

    def chosen_outputs(weights, pictures):
        out = apply(weights, pictures)
        return {key: out[key] for key in keys if key in out}

    return jax.jit(chosen_outputs)


def _singles(pictures):
    """Yield the single pictures of `pictures` as uint8 RGB, all of one size."""
    first, place = None, 0
    for item in pictures:
        for picture in item if getattr(item, "ndim", 0) == 4 else (item,):
            try:
                picture = files.rgb(picture)
            except ValueError as error:
                raise ValueError(f"picture {place}: {error}") from error
            first = first or picture.shape
            if picture.shape != first:
                raise ValueError(
                    f"picture {place} is {picture.shape[0]} x {picture.shape[1]} (height x width), "
                    f"those before it are {first[0]} x {first[1]}: "
                    "bring all to one size (`read_folder` does)"
                )
            yield picture
            place += 1
