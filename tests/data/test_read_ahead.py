"""The two readers give the same batches; errors pass through; nothing is left behind."""

import sys
import threading
import time

import jax
import numpy as np
import pytest

from t2i_jax.core.source import Source
from t2i_jax.data import loader, read_ahead

READERS = ("tf.data", "threads")
COUNT = 23


@pytest.fixture(params=READERS)
def reader(request):
    return request.param


@pytest.fixture
def four_threads(monkeypatch):
    monkeypatch.setattr(read_ahead, "num_threads", lambda: 4)


def source():
    """Pictures whose pixels are their index; some take longer to read than others."""

    def read(index):
        time.sleep(0.002 * (index[0] % 3))
        return np.ones((1, 2, 2, 3), np.uint8) * index.astype(np.uint8)[:, None, None, None]

    return Source([str(i) for i in range(COUNT)], read, "f")


COLUMNS = {"text": {"words": {"tokens": np.arange(2 * COUNT, dtype=np.int32).reshape(-1, 2)}}}


def batches(reader, first=0, last=500, rows=None):
    return loader.batches(source(), COLUMNS, 6, 5, first, last, rows, reader)


@pytest.mark.parametrize(("first", "rows"), [(0, None), (243, None), (100, np.array([1, 2, 5]))])
def test_every_batch_is_the_one_that_the_order_says(reader, four_threads, first, rows):
    chosen = np.arange(6) if rows is None else rows
    found = list(batches(reader, first, first + 500, rows))
    assert len(found) == 500
    for step, batch in enumerate(found, first):
        index = loader.examples_at(5, step * 6 + chosen, COUNT)
        want = loader.make_batch(source(), COLUMNS, index)
        assert jax.tree.structure(batch) == jax.tree.structure(want)
        for ours, theirs in zip(jax.tree.leaves(batch), jax.tree.leaves(want), strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("bad", [0, 3])
def test_a_failing_read_ends_with_its_reason_and_its_cause(reader, four_threads, bad):
    def read(step):
        if step >= bad:
            raise OSError(f"photo{step}.jpg is gone")
        return {"x": np.full(2, step)}

    found, steps = [], read_ahead.read_steps(read, 0, 50, reader)
    message = rf"^the input pipeline failed: OSError: photo{bad}\.jpg is gone$"
    with pytest.raises(RuntimeError, match=message) as error:
        for each in steps:
            found.append(int(each["x"][0]))
    assert found == list(range(bad)) and isinstance(error.value.__cause__, OSError)
    assert not threads_of_the_reader()


def threads_of_the_reader():
    return [thread for thread in threading.enumerate() if thread.name.startswith("read_ahead")]


def test_an_abandoned_iterator_leaves_no_thread(four_threads):
    started = []
    steps = read_ahead.read_steps(lambda step: started.append(step) or step, 0, 1000, "threads")
    assert next(steps) == 0 and threads_of_the_reader()
    del steps
    assert not threads_of_the_reader() and len(started) <= 4 + read_ahead.NUM_READY + 1


def test_the_threads_read_a_bounded_number_of_steps_ahead(four_threads):
    started = []
    steps = read_ahead.read_steps(lambda step: started.append(step) or step, 0, 1000, "threads")
    for taken in range(1, 20):
        next(steps)
        deadline = time.monotonic() + 5
        while len(started) < taken + 8 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert sorted(started) == list(range(taken + 4 + read_ahead.NUM_READY))
    steps.close()


def test_four_threads_read_at_once(four_threads):
    """Each read waits for three others: with fewer threads the barrier would break."""
    together = threading.Barrier(4, timeout=10)
    read = read_ahead.read_steps(lambda step: together.wait() and step, 0, 4, "threads")
    assert len(list(read)) == 4


def test_no_steps(reader):
    assert list(read_ahead.read_steps(lambda step: 1 / 0, 5, 5, reader)) == []


def test_the_reader_that_is_chosen(monkeypatch):
    assert [read_ahead.choose_reader(name) for name in read_ahead.READERS] == [
        *("tf.data", "tf.data", "threads")
    ]
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as if it were not installed
    assert read_ahead.choose_reader("auto") == read_ahead.choose_reader("threads") == "threads"
    with pytest.raises(ValueError, match=r"train\.reader is 'tf\.data', and TensorFlow is not"):
        read_ahead.choose_reader("tf.data")
    with pytest.raises(ValueError, match=r"no reader 'tf': there are auto, tf\.data, threads"):
        read_ahead.choose_reader("tf")
