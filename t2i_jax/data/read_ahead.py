"""Reading ahead: `read(step)` for one step after another, computed before it is asked for.

Two readers give the same values in the same order:

    tf.data    TensorFlow's input pipeline
    threads    threads of the standard library, for environments without TensorFlow

This is the only file of the training path that imports TensorFlow, and only to use tf.data.
"""

import collections
import importlib.util
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from t2i_jax.core.threads import num_threads

READERS = ("auto", "tf.data", "threads")
NUM_READY = 4  # finished batches that wait for the consumer, besides those that are being read


def choose_reader(name: str) -> str:
    """Return "tf.data" or "threads" for a name of READERS.

    "auto" is tf.data where TensorFlow is installed, and threads elsewhere. Raises ValueError for
    tf.data where TensorFlow is not installed, and for a name that is not one of READERS.
    """
    if name not in READERS:
        raise ValueError(f"there is no reader {name!r}: there are {', '.join(READERS)}")
    installed = importlib.util.find_spec("tensorflow") is not None
    if name == "tf.data" and not installed:
        raise ValueError(
            "config.train.reader is 'tf.data', and TensorFlow is not installed: set it to "
            "'threads' or 'auto', or install TensorFlow"
        )
    return name if name != "auto" else "tf.data" if installed else "threads"


def read_steps(
    read: Callable[[int], Any], first: int, last: int, reader: str = "auto"
) -> Generator[Any]:
    """Yield read(first), ..., read(last - 1), in this order, while the next ones are being read.

    read: step -> a tree of arrays with the same structure and types for every step. It is called
        in several threads at once.
    reader: a name of READERS.
    At most num_threads() + NUM_READY results are computed ahead. Closing the iterator stops
    reading. Raises RuntimeError with the reason if `read` fails, and ValueError as `choose_reader`.
    """
    chosen = choose_reader(reader)
    return {"tf.data": _with_tf_data, "threads": _with_threads}[chosen](read, first, last)


def _with_threads(read, first, last):
    pool = ThreadPoolExecutor(num_threads(), thread_name_prefix="read_ahead")
    pending = collections.deque()
    try:
        for step in range(first, last):
            pending.append(pool.submit(read, step))
            if len(pending) > num_threads() + NUM_READY:
                yield _result(pending.popleft())
        while pending:
            yield _result(pending.popleft())
    finally:  # also when the consumer stops, or when a read failed
        pool.shutdown(cancel_futures=True)


def _result(future):
    try:
        return future.result()
    except Exception as error:
        raise _failure(error) from error


def _with_tf_data(read, first, last):
    # Quiet: TensorFlow only reads ahead here, and oneDNN announces itself twice.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # the accelerator is JAX's
    if first >= last:
        return
    failures = {}

    def read_leaves(step):
        try:
            return jax.tree.leaves(read(int(step)))
        except Exception as error:
            failures[int(step)] = error  # TensorFlow passes on its text alone
            raise

    try:
        result = read(first)  # here, because tf.data needs to be told the types
    except Exception as error:
        raise _failure(error) from error
    leaves, tree = jax.tree.flatten(result)
    dataset = tf.data.Dataset.range(first + 1, last)
    dataset = dataset.map(
        lambda step: tf.numpy_function(read_leaves, [step], [leaf.dtype for leaf in leaves]),
        num_parallel_calls=num_threads(),
        deterministic=True,
    )
    options = tf.data.Options()
    options.threading.private_threadpool_size = num_threads()
    options.autotune.enabled = False
    iterator = dataset.prefetch(NUM_READY).with_options(options).as_numpy_iterator()
    yield result
    for step in range(first + 1, last):
        try:
            batch = next(iterator)
        except tf.errors.OpError as error:
            reason = failures.get(step, error)
            raise _failure(reason) from reason
        yield jax.tree.unflatten(tree, batch)


def _failure(error: Exception) -> RuntimeError:
    return RuntimeError(f"the input pipeline failed: {type(error).__name__}: {error}")
