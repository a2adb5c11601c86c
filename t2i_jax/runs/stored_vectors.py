"""Vectors of pictures in a file, with the hash of the weights that gave them.

Vectors of two models are of two spaces: their cosines are numbers, but say nothing. So a file is
read by the model that wrote it, and refused by every other.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from t2i_jax.core.files import atomic_path

FOUND = 5  # pictures that a search tells for each caption
ARRAYS = ("vectors", "names", "weights")


class StoredVectors(NamedTuple):
    """Vectors of unit length, and the pictures that they are of.

    vectors: float32 [N, D].
    names: of the pictures.
    weights: the hash of the model's weights (`Pipeline.weights`).
    """

    vectors: Float[np.ndarray, "N D"]
    names: list[str]
    weights: str


def write(path: str | Path, stored: StoredVectors) -> None:
    """Write the vectors to a .npz file, whole or not at all."""
    names, weights = np.array(stored.names), np.array(stored.weights)
    with atomic_path(Path(path)) as part, open(part, "wb") as file:
        np.savez(file, vectors=stored.vectors, names=names, weights=weights)


def read(path: str | Path, weights: str) -> StoredVectors:
    """Read a file of `write`.

    weights: the hash of the weights of the model that is to use them.
    Raises FileNotFoundError if there is no such file, and ValueError if it is damaged or of another
    model.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}: write it by embed_image --out=X.npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            vectors, names, of = (file[name] for name in ARRAYS)
        count, _ = vectors.shape
        if count != len(names):
            raise ValueError(f"{count} vectors of {len(names)} pictures")
    except Exception as error:  # NumPy raises many kinds for broken bytes
        raise ValueError(
            f"{path} is damaged, or no file of embed_image --out=X.npz ({error})"
        ) from error
    if str(of) != weights:
        raise ValueError(
            f"{path} has vectors of another model (weights {of}; this one has {weights}): write it "
            "again by embed_image with this model"
        )
    return StoredVectors(vectors, [str(name) for name in names], weights)


def nearest(
    stored: StoredVectors, query: Float[np.ndarray, "D"], count: int
) -> list[tuple[str, float]]:
    """Return (name, cosine) of the `count` pictures whose vectors are nearest to `query`."""
    cosines = stored.vectors @ query
    order = np.argsort(-cosines, kind="stable")[:count]
    return [(stored.names[int(i)], float(cosines[i])) for i in order]


def store(pipe: Any, images: Sequence[str], path: str) -> str:
    """Write the vectors of pictures to a .npz file, and return what was written in words.

    pipe: the `Pipeline` that embeds them.
    images: their paths.
    """
    vectors = pipe.embed_image(images)
    write(path, StoredVectors(vectors, list(images), pipe.weights))
    return f"{path}: {len(vectors)} vectors of the weights {pipe.weights}"


def search(pipe: Any, captions: Sequence[str], path: str) -> list[str]:
    """Return a line for each of the FOUND pictures of a file that fit a caption best.

    pipe: the `Pipeline` that wrote the file. Raises as `read` does.
    """
    stored, lines = read(path, pipe.weights), []
    for caption, vector in zip(captions, pipe.embed_text(captions), strict=True):
        found = nearest(stored, vector, FOUND)
        lines += [f"{cosine:.3f}  {name}  {caption}" for name, cosine in found]
    return lines
