"""What turns pictures into numbers that metrics compare, and the way of any number of pictures through it.

An extractor is a module of this folder with one function, `make(path) -> Extractor`; the file name is the registry
(`load("efficientnet_lite0")` imports `t2i_jax/features/efficientnet_lite0.py`).
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image, ImageOps

from t2i_jax.by_name import make_of
from t2i_jax.data import pictures as files


class Extractor(NamedTuple):
    """A network that looks at pictures, and how its numbers are to be called.

    name: how numbers are labelled: "KID (EfficientNet-Lite0)".
    rule: resize and normalisation in words, printed with every number.
    weights: tree of arrays, the first argument of `apply`.
    apply: weights, uint8 [B, H, W, 3] -> {"features": float32 [B, D], and where there are such "logits": float32 [B, C],
        "maps": [float32 [B, h, w, c], ...]}; pure, treats each picture by itself, and resizes inside.
    fid: whether it is Inception-v3 in the FID variant; only then may a Fréchet distance be called FID.
    embed_text: captions -> float32 [N, D] of unit length in the space of the features, if the network knows words.
    """

    name: str
    rule: str
    weights: Any
    apply: Callable
    fid: bool = False
    embed_text: Callable | None = None


def load(name: str, path: str = "") -> Extractor:
    """The extractor `name`; `path` is its weight file (default: that which `main.py prepare --weights=NAME` fetched)."""
    return make_of("features", name)(path)


def extract(
    extractor: Extractor,
    pictures: Iterable,
    batch: int = 64,
    devices=None,
    keys: tuple[str, ...] = ("features", "logits"),
) -> Iterator[dict[str, np.ndarray]]:
    """Streams pictures through the network; what it gives lies on the host, in the order of the pictures.

    pictures: iterable of single pictures [H, W], [H, W, 1..4] (see `rgb`) and of arrays of them [n, H, W, 1..4], all of
        one size; read as they are needed, never more than a batch ahead.
    batch: pictures at a time, rounded up to a multiple of the devices; the last batch is filled up with black ones, so
        that one program is compiled, and cut again.
    devices: they share each batch (default: all local ones).
    keys: what is wanted of `apply`'s results, as far as they exist; "maps" are large.

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
        yield {key: [x[real] for x in value] if isinstance(value, list) else value[real] for key, value in out.items()}


def rgb(picture: np.ndarray | Image.Image) -> np.ndarray:
    """One picture of any kind as uint8 RGB [H, W, 3], by the rules of t2i_jax/data/pictures.py.

    picture: uint8 or uint16 [H, W] or [H, W, C], with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA, or a Pillow picture.
    16 bits are scaled to 8, what is transparent is composed onto white. Raises ValueError for anything else.
    """
    if isinstance(picture, Image.Image):
        return np.asarray(files.on_white(ImageOps.exif_transpose(picture)))
    picture = np.asarray(picture)
    kind = f"{picture.dtype} {list(picture.shape)}"
    if picture.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"a picture needs to be uint8 (or uint16) in 0..255 (or 0..65535), got {kind}")
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim != 3 or not 1 <= picture.shape[2] <= 4 or 0 in picture.shape:
        raise ValueError(f"a picture needs to be [H, W] or [H, W, C] with C from 1 (grey) to 4 (RGBA), got {kind}")
    if picture.dtype == np.uint16:
        picture = ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if picture.shape[2] == 3:
        return picture
    return np.asarray(files.on_white(Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)))


def of_folder(folder: str | Path, resolution: int) -> Iterator[np.ndarray]:
    """All pictures of a folder and its subfolders in the order of their names, each uint8 [resolution, resolution, 3].

    They are decoded one at a time, as they are asked for, by `t2i_jax.data.pictures.decode`: what is not square is cut to
    its centre, what has another size is resized with Lanczos. Raises FileNotFoundError if there is no such folder,
    ValueError if it has no pictures, and, naming the file, if one cannot be read.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.suffix.lower() in files.SUFFIXES)
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not names:
        raise ValueError(f"{folder} has no pictures: they end in {', '.join(sorted(files.SUFFIXES))}")
    return (_decoded(folder / name, resolution) for name in names)


def _decoded(path, resolution):
    try:
        return files.decode(path, resolution)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


@functools.lru_cache(maxsize=8)
def _program(apply, keys):
    """One compiled program for each network and choice of results, however often `extract` is called."""

    def chosen(weights, pictures):
        out = apply(weights, pictures)
        return {key: out[key] for key in keys if key in out}

    return jax.jit(chosen)


def _singles(pictures):
    """The single pictures of `pictures` as uint8 RGB, all of one size."""
    first, place = None, 0
    for item in pictures:
        for picture in item if getattr(item, "ndim", 0) == 4 else (item,):
            try:
                picture = rgb(picture)
            except ValueError as error:
                raise ValueError(f"picture {place}: {error}") from error
            first = first or picture.shape
            if picture.shape != first:
                raise ValueError(
                    f"picture {place} is {picture.shape[0]} x {picture.shape[1]} (height x width), those before it are "
                    f"{first[0]} x {first[1]}: bring all to one size (`of_folder` does)"
                )
            yield picture
            place += 1
