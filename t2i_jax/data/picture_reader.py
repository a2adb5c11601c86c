"""`read` of a source of encoded pictures: decoded in threads, and kept in memory if few."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int

from t2i_jax.core.threads import num_threads

CACHE_BYTES = 2**30  # pictures stay in memory if all their pixels are less than this


def picture_reader(
    decode: Callable[[int], np.ndarray],
    count: int,
    row_of: Int[np.ndarray, "N"],
    height: int,
    width: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """Return `read` of a Source (core/source.py).

    decode: row -> uint8 [height, width, 3]; it is called in several threads at once.
    count: number of pictures; rows are 0 .. count - 1.
    row_of: the picture of each example.
    """
    # Cached, and not created here: no threads before the first read.
    pool = functools.cache(lambda: ThreadPoolExecutor(num_threads()))
    shape = (height, width, 3)
    cached = count * int(np.prod(shape)) < CACHE_BYTES
    cache = np.zeros((count if cached else 0, *shape), np.uint8)
    filled = np.zeros(count, bool)

    def read(positions):
        rows = row_of[np.asarray(positions, np.int64)]
        if not cached:
            return np.array(list(pool().map(decode, rows)), np.uint8).reshape(-1, *shape)
        needed = np.unique(rows[~filled[rows]])
        images = pool().map(decode, needed) if len(needed) else ()
        for row, image in zip(needed, images, strict=True):
            cache[row], filled[row] = image, True  # in this order: another thread may be reading
        return cache[rows]

    return read
