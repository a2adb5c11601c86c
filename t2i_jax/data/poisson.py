"""Poisson sampling: each example is in a batch with the same probability, independently.

Private training needs it (arXiv 1607.00133). The arrays of a batch have a fixed size, so a column
says which rows hold an example; the others are filled up with the first example.
"""

import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int

INCLUDED = "included"  # the name of the column, float32 [B]: 1 for an example, 0 for what fills up
_STREAM = 2**32 - 5  # apart from the epochs that share the seed


@functools.lru_cache(maxsize=8)
def poisson_batch(
    seed: int, step: int, count: int, rate: float, size: int
) -> tuple[Int[np.ndarray, "B"], Bool[np.ndarray, "B"]]:
    """Return (the example in each row, whether it is one that was drawn) of a step's batch.

    It is a pure function of its arguments, in random order. Of more than `size` examples drawn,
    some are left out at random; `training.accountant` counts how likely that is.
    """
    random = np.random.default_rng((seed, step, _STREAM))
    drawn = random.permutation(np.flatnonzero(random.random(count) < rate))[:size]
    index = np.zeros(size, np.int64)
    index[: len(drawn)] = drawn
    return index, np.arange(size) < len(drawn)


def columns_of(columns: Mapping, included: Bool[np.ndarray, "B"]) -> dict:
    """Return a batch with the column that says which of its rows hold an example."""
    return {**columns, INCLUDED: included.astype(np.float32)}
