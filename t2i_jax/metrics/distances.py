"""Distances between two sets of features, a tile at a time: memory grows with the sets, never with their product."""

from collections.abc import Iterator

import numpy as np

TILE = 1024  # rows of each set that meet at once: a tile is 8 MB
SAME = 1e-13  # of the two squared lengths: what float64 leaves of the squared distance of two equal rows is less than this


def checked(features, name: str = "features", least: int = 1, first: int = 0) -> np.ndarray:
    """The features as float64 [N, D]. Raises ValueError if they are of another shape, fewer than `least`, or not finite.

    `first` is the number of the first row, for the message, where the rows are a part of a longer stream.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise ValueError(f"{name} must be of shape [N, D], not {list(features.shape)}")
    if len(features) < least:
        raise ValueError(f"{name}: at least {least:,} samples are needed, there are {len(features):,}")
    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if bad.size:
        raise ValueError(
            f"{bad.size:,} of {len(features):,} rows of {name} hold NaN or infinity, the first is row {first + bad[0]:,}"
        )
    return features


def checked_pair(a, b, names: tuple[str, str], least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 [N, D] and [M, D]. Raises ValueError as `checked` does, and if their dimensions differ."""
    a, b = checked(a, names[0], least), checked(b, names[1], least)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{names[0]} have {a.shape[1]:,} dimensions and {names[1]} {b.shape[1]:,}: use one extractor for both")
    return a, b


def unit_length(features: np.ndarray, name: str = "features") -> np.ndarray:
    """Each row divided by its length. Raises ValueError if a row is zero, since it has no direction."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    if not length.all():
        raise ValueError(f"row {int(np.flatnonzero(length[:, 0] == 0)[0]):,} of {name} is zero: it has no direction")
    return features / length


def tiles(n: int, m: int, tile: int = TILE) -> Iterator[tuple[slice, slice]]:
    """The parts of an [n, m] matrix, row by row, as pairs of slices of at most `tile`."""
    for i in range(0, n, tile):
        for j in range(0, m, tile):
            yield slice(i, min(i + tile, n)), slice(j, min(j + tile, m))


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 [N, M] of float64 [N, D] and [M, D]; exactly 0 between rows nearer than 3e-7 of their lengths (`SAME`).

    Features are computed in float32, which tells such rows apart no better; and copies must be found to be copies.
    """
    lengths = np.einsum("nd,nd->n", a, a)[:, None] + np.einsum("md,md->m", b, b)
    squared = lengths - 2 * a @ b.T
    return np.where(squared > SAME * lengths, squared, 0.0)


def nearest(a: np.ndarray, b: np.ndarray, k: int = 1, tile: int = TILE) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of b [M, D], k <= M, that are nearest to each row of a [N, D], nearest first; of equals, any.

    Gives the distances, float64 [N, k], and which rows they are, int64 [N, k]. With b = a the first is the row itself
    or a copy of it.
    """
    squared, index = np.full((len(a), k), np.inf), np.zeros((len(a), k), np.int64)
    for i, j in tiles(len(a), len(b), tile):
        found = np.concatenate([squared[i], squared_distances(a[i], b[j])], 1)
        names = np.concatenate([index[i], np.broadcast_to(np.arange(j.start, j.stop), (len(found), j.stop - j.start))], 1)
        best = np.argpartition(found, k - 1, axis=1)[:, :k]
        squared[i], index[i] = np.take_along_axis(found, best, 1), np.take_along_axis(names, best, 1)
    order = np.argsort(squared, axis=1, kind="stable")
    return np.sqrt(np.take_along_axis(squared, order, 1)), np.take_along_axis(index, order, 1)


def mean_distance(features: np.ndarray) -> float:
    """The mean distance between two different rows of [N, D], N >= 2."""
    n = len(features)
    total = sum(np.sqrt(squared_distances(features[i], features[j])).sum() for i, j in tiles(n, n))
    return float(total / (n * (n - 1)))
