"""The tokens of a grid depend on the caption and on coarser grids, and on nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models.layers import sine_positions_2d
from t2i_jax.models.next_scale import NextScale, scale_mask, scale_positions, spans

SCALES, CODES = (1, 2, 3), 5


def test_spans_and_positions():
    assert spans(SCALES) == [(1, 0, 1), (2, 1, 5), (3, 5, 14)]
    table = scale_positions(SCALES, 8)
    # In the finest grid, positions are whole numbers.
    np.testing.assert_allclose(table[5:], sine_positions_2d(3, 3, 8), atol=1e-6)
    # The middle of the picture is the middle of 3 x 3 cells.
    np.testing.assert_allclose(table[0], table[5 + 4], atol=1e-6)
    assert np.abs(table[1] - table[2]).max() > 0.1


def test_scale_mask():
    seen = scale_mask(jnp.array([[True, False]]), np.array([0, 1, 1]))[0, 0].astype(int)
    np.testing.assert_array_equal(
        seen, [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 1, 1, 1], [1, 0, 1, 1, 1]]
    )


@pytest.fixture(scope="module")
def model():
    network = NextScale(CODES, SCALES, width=16, depth=2, heads=2)
    codebook = jax.random.normal(jax.random.key(0), (CODES, 4))
    sequence = jax.random.normal(jax.random.key(1), (1, 3, 8))
    text = TextCondition(sequence, sequence.mean(1), jnp.array([[True, True, False]]))
    coarse = jax.random.normal(jax.random.key(2), (1, 14, 4))
    variables = jax.jit(network.init)(jax.random.key(3), text, coarse, codebook)
    return (
        jax.jit(lambda text, coarse: network.apply(variables, text, coarse, codebook)),
        text,
        coarse,
    )


def test_finer_grids_have_no_influence(model):
    run, text, coarse = model
    before = run(text, coarse)
    other = run(text, coarse.at[:, 5:].add(1.0))
    assert before.shape == (1, 14, CODES)
    np.testing.assert_allclose(other[:, :5], before[:, :5], atol=1e-6)
    assert (jnp.abs(other[:, 5:] - before[:, 5:]).max(-1) > 1e-4).all()


def test_coarser_grids_and_the_caption_have_an_influence(model):
    run, text, coarse = model
    before = run(text, coarse)
    assert (jnp.abs(run(text, coarse.at[:, 1].add(1.0)) - before)[:, 1:].max(-1) > 1e-5).all()
    assert (
        jnp.abs(run(text._replace(sequence=text.sequence.at[:, 1].add(1.0)), coarse) - before).max(
            -1
        )
        > 1e-5
    ).all()
    padded = run(text._replace(sequence=text.sequence.at[:, 2].add(9.0)), coarse)
    np.testing.assert_allclose(padded, before, atol=1e-6)
