"""What the machine can do at most: the rates of a large matrix product and of a large copy."""

import time
from collections.abc import Callable

import numpy as np

SIZE = 1536  # of the matrices: 7.2 GFLOP a product
COPIED_BYTES = 2**27
REPEATS = 3


def measure(product: Callable[[], object]) -> dict[str, float]:
    """Return {"flops_per_second", "bytes_per_second"}: the best of REPEATS each.

    product: computes the product of two matrices of SIZE x SIZE. Each library has its own.
    A copied byte counts twice: it is read and written.
    """
    source, target = (np.zeros(COPIED_BYTES // 8) for _ in range(2))
    target[:] = 1.0  # so that all its pages are there
    return {
        "flops_per_second": 2 * SIZE**3 / _best(product),
        "bytes_per_second": 2 * COPIED_BYTES / _best(lambda: np.copyto(target, source)),
    }


def _best(call: Callable) -> float:
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
