"""Batches from a source: read ahead, in an order that is a pure function of (seed, position)."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Generator, Iterator, Mapping

import jax
import numpy as np
from jaxtyping import Int

from t2i_jax.core.source import Source
from t2i_jax.data import buckets, read_ahead
from t2i_jax.data.poisson import columns_of, poisson_batch


@functools.lru_cache(maxsize=6)
def epoch_order(seed: int, epoch: int, count: int, stream: int = 0) -> Int[np.ndarray, "N"]:
    """Return the order of `count` examples in one epoch.

    stream: 0 for the source, 1 for its second one: their orders are independent.
    """
    return np.random.default_rng((seed, epoch, stream)).permutation(count)


def examples_at(
    seed: int, positions: Int[np.ndarray, "N"], count: int, stream: int = 0
) -> Int[np.ndarray, "N"]:
    """Return the example index at each position of the infinite shuffled stream.

    The stream is one epoch of `count` examples after another, each in its own order.
    """
    return np.array(
        [epoch_order(seed, int(p) // count, count, stream)[int(p) % count] for p in positions],
        np.int64,
    )


def make_batch(
    source: Source,
    columns: Mapping,
    index: Int[np.ndarray, "B"],
    index_b: Int[np.ndarray, "B"] | None = None,
) -> dict:
    """Return the examples at `index`: {"image" uint8 [B, H, W, 3], "index" int32 [B], **columns}.

    Where there is a second source, its pictures are "image_b" [B, H, W, 3].
    columns: a tree of arrays with a row for each example, or of objects that take indices as arrays
        do (see runs/columns.py). If its "image" is None, no pictures are read.
    index_b: of the second source; by default as `index`, from the start again at its end.
    """
    columns = {"image": _PictureColumn(source.read), **columns}
    batch = {**jax.tree.map(lambda x: x[index], columns), "index": index.astype(np.int32)}
    if source.second:
        index_b = index % len(source.second.captions) if index_b is None else index_b
        batch["image_b"] = source.second.read(index_b)
    return batch


@dataclasses.dataclass(frozen=True)
class _PictureColumn:
    """Pictures as a column: indexing reads them."""

    read: Callable

    def __getitem__(self, index):
        return self.read(index)


def batches(
    source: Source,
    columns: Mapping,
    batch_size: int,
    seed: int,
    first: int,
    last: int,
    rows: Int[np.ndarray, "N"] | None = None,
    reader: str = "auto",
    rate: float = 0.0,
) -> Generator[dict]:
    """Return an iterator over the batches of steps first .. last - 1, which are read ahead.

    Starting at any step costs nothing. A second source has epochs and orders of its own.
    Where the source has buckets, each batch has pictures of one size.
    rows: the rows of each batch to read; by default all `batch_size`. With several processes, each
        reads those of its own devices.
    rate: if not 0, Poisson sampling: each example is in a batch with this probability. The batch
        has the column `poisson.INCLUDED`, 0 for rows that only fill it up.
    reader: a name of `read_ahead.READERS`. It changes no batch.
    The iterator raises RuntimeError if reading fails.
    """
    count, rows = len(source.captions), np.arange(batch_size) if rows is None else rows
    if source.buckets:
        columns = {"image": _PictureColumn(source.buckets.read), **columns}
        in_sizes = buckets.batch_order(source.buckets, batch_size, seed)

    def read(step: int) -> dict:
        if rate:
            index, included = poisson_batch(seed, step, count, rate, batch_size)
            return columns_of(make_batch(source, columns, index[rows]), included[rows])
        if source.buckets:
            index = in_sizes(step)[rows]
        else:
            index = examples_at(seed, step * batch_size + rows, count)
        if not source.second:
            return make_batch(source, columns, index)
        count_b = len(source.second.captions)
        index_b = examples_at(seed, step * batch_size + rows, count_b, stream=1)
        return make_batch(source, columns, index, index_b)

    return read_ahead.read_steps(read, first, last, reader)


def prefetch(iterator: Iterator, put: Callable, size: int = 2) -> Iterator:
    """Yield put(batch) for each batch, with `size` transfers started ahead.

    Transfers to the device thus overlap with computation.
    """
    queue = collections.deque()
    for batch in iterator:
        queue.append(put(batch))
        if len(queue) > size:
            yield queue.popleft()
    yield from queue
