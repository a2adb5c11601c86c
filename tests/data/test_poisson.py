"""Poisson sampling: each example with its probability, independent of the others."""

import numpy as np

from t2i_jax.data import loader
from t2i_jax.data.load import load_source
from t2i_jax.data.poisson import INCLUDED, poisson_batch

STEPS, COUNT, RATE = 4000, 50, 0.2


def test_each_example_is_drawn_with_its_probability():
    drawn = np.zeros((STEPS, COUNT), bool)
    for step in range(STEPS):
        index, included = poisson_batch(3, step, COUNT, RATE, COUNT)
        assert len(set(index[included])) == included.sum()
        drawn[step, index[included]] = True
    # Four standard deviations of a mean over the steps.
    np.testing.assert_allclose(drawn.mean(0), RATE, atol=4 * np.sqrt(RATE * (1 - RATE) / STEPS))
    # The size of a batch is binomial, as of independent draws.
    sizes = drawn.sum(1)
    np.testing.assert_allclose(sizes.mean(), COUNT * RATE, rtol=0.02)
    np.testing.assert_allclose(sizes.var(), COUNT * RATE * (1 - RATE), rtol=0.1)


def test_a_full_batch_leaves_out_examples_at_random():
    left_out = np.zeros(COUNT)
    for step in range(1000):
        index, included = poisson_batch(0, step, COUNT, 1.0, 40)
        assert included.all() and len(set(index)) == 40
        left_out[np.setdiff1d(np.arange(COUNT), index)] += 1
    np.testing.assert_allclose(left_out / 1000, 0.2, atol=0.06)


def test_batches_have_the_column_and_start_anywhere(smoke):
    source = load_source(smoke("shapes").data, "train")
    arguments = (source, {}, 16, 7)
    whole = list(loader.batches(*arguments, 0, 4, reader="threads", rate=0.05))
    rest = list(loader.batches(*arguments, 2, 4, reader="threads", rate=0.05))
    some = np.array([1, 5])
    part = list(loader.batches(*arguments, 2, 4, some, reader="threads", rate=0.05))
    for here, there, few in zip(whole[2:], rest, part, strict=True):
        for name in ("image", "index", INCLUDED):
            np.testing.assert_array_equal(here[name], there[name])
            np.testing.assert_array_equal(here[name][some], few[name])
    assert len({batch[INCLUDED].sum() for batch in whole}) > 1  # of random size
    assert INCLUDED not in next(loader.batches(*arguments, 0, 1, reader="threads"))
