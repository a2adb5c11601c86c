"""Batches from a source: tf.data reads ahead, and the order is a pure function of (seed, position).

The only file of the training path that needs TensorFlow.
"""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import jax
import numpy as np

from t2i_jax.data.source import Source
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.condition import make_encoder


@functools.lru_cache(maxsize=3)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of `count` examples in one epoch: int64 [count]."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def examples_at(seed: int, positions: np.ndarray, count: int) -> np.ndarray:
    """Which example stands at each position of the endless stream of shuffled epochs."""
    return np.array([epoch_order(seed, int(p) // count, count)[int(p) % count] for p in positions], np.int64)


def tokenise(
    source: Source, tokenizer, config, variants: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> tuple[dict, int]:
    """All captions of a source, once, as `config` (`config.text`) has them, and how many were cut to `config.length`.

    Gives {"text": {encoder: {"tokens" [N, L], "mask" [N, L]}}}, with what the encoder computes of them beforehand; and, where
    there are variants {augmentation: captions}, the same of them as {"variants": {augmentation: {encoder: ...}}}.
    """
    encoder = make_encoder(config)
    encoded = {name: tokenizers.encode(tokenizer, said, config.length) for name, said in variants.items()}
    plain, cut = tokenizers.encode(tokenizer, source.captions, config.length)
    texts = {"text": {config.encoder: encoder.precompute(plain)}}
    if encoded:
        texts["variants"] = {name: {config.encoder: encoder.precompute(text)} for name, (text, _) in encoded.items()}
    return texts, cut + sum(more for _, more in encoded.values())


def make_batch(source: Source, columns: Mapping, index: np.ndarray) -> dict:
    """{"image" uint8 [B,H,W,3], "index" int32 [B], and `columns` (of `tokenise`, say)} of the examples at `index`.

    columns: a tree of arrays, or of whatever takes indices; where "image" is None, no pictures are read.
    """
    columns = {"image": _Reader(source.read), **columns}
    return {**jax.tree.map(lambda x: x[index], columns), "index": index.astype(np.int32)}


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Pictures as a column."""

    read: Callable

    def __getitem__(self, index):
        return self.read(index)


def batches(source: Source, columns: Mapping, batch_size: int, seed: int, first: int, last: int) -> Iterator[dict]:
    """The batches of steps first .. last - 1, read ahead by tf.data; starting anywhere costs nothing.

    With several processes each yields its own slice of the global batch. Raises RuntimeError if reading fails.
    """
    # Quiet: TensorFlow only reads ahead here, and oneDNN announces itself twice.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # the accelerator is JAX's
    count, local = len(source.captions), batch_size // jax.process_count()
    offset = local * jax.process_index()
    leaves, tree = jax.tree.flatten(make_batch(source, columns, np.zeros(1, np.int64)))

    def read(step):
        positions = np.arange(local) + int(step) * batch_size + offset
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
    """`put(batch)` of each batch, started `size` batches ahead, so that transfers overlap with computation."""
    queue = collections.deque()
    for batch in iterator:
        queue.append(put(batch))
        if len(queue) > size:
            yield queue.popleft()
    yield from queue
