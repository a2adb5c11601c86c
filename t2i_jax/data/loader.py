"""Batches from a source: tf.data reads ahead, and the order is a pure function of (seed, position).

This is the only file of the training path that needs TensorFlow.
"""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jaxtyping import Int

from t2i_jax.core.source import Source


@functools.lru_cache(maxsize=3)
def epoch_order(seed: int, epoch: int, count: int) -> Int[np.ndarray, "N"]:
    """Return the order of `count` examples in one epoch."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def examples_at(seed: int, positions: Int[np.ndarray, "N"], count: int) -> Int[np.ndarray, "N"]:
    """Return the example index at each position of the infinite shuffled stream.

    The stream is one epoch of `count` examples after another, each in its own order.
    """
    return np.array(
        [epoch_order(seed, int(p) // count, count)[int(p) % count] for p in positions], np.int64
    )


def make_batch(source: Source, columns: Mapping, index: Int[np.ndarray, "B"]) -> dict:
    """Return the examples at `index`: {"image" uint8 [B, H, W, 3], "index" int32 [B], **columns}.

    columns: a tree of arrays with a row for each example, or of objects that take indices as arrays
        do (see runs/columns.py). If its "image" is None, no pictures are read.
    """
    columns = {"image": _PictureColumn(source.read), **columns}
    return {**jax.tree.map(lambda x: x[index], columns), "index": index.astype(np.int32)}


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
) -> Iterator[dict]:
    """Yield the batches of steps first .. last - 1, read ahead by tf.data.

    Starting at any step costs nothing.
    rows: the rows of each batch to read; by default all `batch_size`. With several processes, each
        reads those of its own devices.
    Raises RuntimeError if reading fails.
    """
    # Quiet: TensorFlow only reads ahead here, and oneDNN announces itself twice.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # the accelerator is JAX's
    count, rows = len(source.captions), np.arange(batch_size) if rows is None else rows
    leaves, tree = jax.tree.flatten(make_batch(source, columns, np.zeros(1, np.int64)))

    def read(step):
        positions = int(step) * batch_size + rows
        return jax.tree.leaves(make_batch(source, columns, examples_at(seed, positions, count)))

    dataset = tf.data.Dataset.range(first, last)
    dataset = dataset.map(
        lambda step: tf.numpy_function(read, [step], [leaf.dtype for leaf in leaves]),
        num_parallel_calls=2,
        deterministic=True,
    )
    options = tf.data.Options()
    options.threading.private_threadpool_size = 2
    options.autotune.enabled = False
    iterator = dataset.prefetch(4).with_options(options).as_numpy_iterator()
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except tf.errors.OpError as error:
            raise RuntimeError(f"the input pipeline failed: {error.message}") from error
        yield jax.tree.unflatten(tree, batch)


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
