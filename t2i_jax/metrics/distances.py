"""Distances between two sets of features, computed tile by tile.

Memory grows with the size of each set, never with their product.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int64

TILE_ROWS = 1024  # rows of each set in a tile, which takes 8 MB
# Relative to the sum of the two squared lengths. Rounding in float64 leaves less than this of the
# squared distance of two equal rows.
ZERO_SQUARED_DISTANCE = 1e-13


def checked(
    features, name: str = "features", least: int = 1, first: int = 0
) -> Float[np.ndarray, "N D"]:
    """Return the features as float64 [N, D].

    name: what to call them in messages.
    first: the number of the first row, for messages, if the rows are part of a longer stream.

    Raises ValueError if they have another shape, are fewer than `least`, or not finite.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise ValueError(f"{name} must be of shape [N, D], not {list(features.shape)}")
    if len(features) < least:
        raise ValueError(
            f"{name}: at least {least:,} samples are needed, there are {len(features):,}"
        )
    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if bad.size:
        raise ValueError(
            f"{bad.size:,} of {len(features):,} rows of {name} hold NaN or infinity, "
            f"the first is row {first + bad[0]:,}"
        )
    return features


def checked_pair(
    a, b, names: tuple[str, str], least: int = 1
) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "M D"]]:
    """Return both sets of features as float64.

    Raises ValueError as `checked` does, and if their dimensions differ.
    """
    a, b = checked(a, names[0], least), checked(b, names[1], least)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{names[0]} have {a.shape[1]:,} dimensions and {names[1]} {b.shape[1]:,}: "
            "use one extractor for both"
        )
    return a, b


def unit_length(
    features: Float[np.ndarray, "N D"], name: str = "features"
) -> Float[np.ndarray, "N D"]:
    """Divide each row by its length. Raises ValueError if a row is zero: it has no direction."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    if not length.all():
        row = int(np.flatnonzero(length[:, 0] == 0)[0])
        raise ValueError(f"row {row:,} of {name} is zero: it has no direction")
    return features / length


def tiles(n: int, m: int, tile: int = TILE_ROWS) -> Iterator[tuple[slice, slice]]:
    """Yield the tiles of an [n, m] matrix, row by row, as pairs of slices of at most `tile`."""
    for i in range(0, n, tile):
        for j in range(0, m, tile):
            yield slice(i, min(i + tile, n)), slice(j, min(j + tile, m))


def squared_distances(
    a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]
) -> Float[np.ndarray, "N M"]:
    """Return the squared distances of all pairs of rows, in float64.

    They are exactly 0 between rows closer than 3e-7 of their lengths (ZERO_SQUARED_DISTANCE),
    because a copy must be found to be a copy. Features are computed in float32, which cannot tell
    such rows apart either.
    """
    lengths = np.einsum("nd,nd->n", a, a)[:, None] + np.einsum("md,md->m", b, b)
    squared = lengths - 2 * a @ b.T
    return np.where(squared > ZERO_SQUARED_DISTANCE * lengths, squared, 0.0)


def nearest(
    a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"], k: int = 1, tile: int = TILE_ROWS
) -> tuple[Float[np.ndarray, "N {k}"], Int64[np.ndarray, "N {k}"]]:
    """Find the k <= M rows of b that are nearest to each row of a, nearest first.

    Returns (distances, row numbers in b). With b = a, the first one is the row itself or a copy of
    it. Of rows at the same distance, any may be returned.
    """
    squared, index = np.full((len(a), k), np.inf), np.zeros((len(a), k), np.int64)
    for i, j in tiles(len(a), len(b), tile):
        found = np.concatenate([squared[i], squared_distances(a[i], b[j])], 1)
        columns = np.broadcast_to(np.arange(j.start, j.stop), (len(found), j.stop - j.start))
        rows = np.concatenate([index[i], columns], 1)
        best = np.argpartition(found, k - 1, axis=1)[:, :k]
        squared[i] = np.take_along_axis(found, best, 1)
        index[i] = np.take_along_axis(rows, best, 1)
    order = np.argsort(squared, axis=1, kind="stable")
    return np.sqrt(np.take_along_axis(squared, order, 1)), np.take_along_axis(index, order, 1)


def mean_distance(features: Float[np.ndarray, "N D"]) -> float:
    """Return the mean distance between two different rows, for N >= 2."""
    n = len(features)
    total = sum(np.sqrt(squared_distances(features[i], features[j])).sum() for i, j in tiles(n, n))
    return float(total / (n * (n - 1)))
