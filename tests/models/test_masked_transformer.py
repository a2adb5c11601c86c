"""The masked transformer sees all that is given and nothing that is masked."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.masked_transformer import MaskedTransformer, window_table
from t2i_jax.text.condition import TextCondition

CODES, GRID = 3, (2, 2)


def _text(batch, length=3, mask=None, seed=0):
    sequence = jax.random.normal(jax.random.key(seed), (1, length, 8)).repeat(batch, 0)
    return TextCondition(sequence, sequence.mean(1), jnp.ones((batch, length), bool) if mask is None else mask)


@pytest.fixture(scope="module")
def model():
    network = MaskedTransformer(CODES, GRID, width=16, depth=1, heads=2)
    codebook = jax.random.normal(jax.random.key(1), (CODES, 4))
    codes = jnp.zeros((1, 4), jnp.int32)
    variables = jax.jit(network.init)(jax.random.key(0), _text(1), codes, codes == 0, codebook)
    return jax.jit(lambda text, codes, masked: network.apply(variables, text, codes, masked, codebook))


def test_window_table():
    """Every place of a 2 x 3 grid with its eight neighbours; 6 is the outside."""
    table = window_table((2, 3), 1)
    np.testing.assert_array_equal(table[1], [6, 6, 6, 0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(table[5], [1, 2, 6, 4, 5, 6, 6, 6, 6])
    np.testing.assert_array_equal(window_table((2, 3), 0)[:, 0], np.arange(6))
    assert window_table((3, 3), 2).shape == (9, 25) and (window_table((3, 3), 2)[4] < 9).sum() == 9


def test_probabilities_of_all_pictures_sum_to_one_in_any_order(model):
    """By the chain rule, if what is masked is not seen: of all 81 pictures of 4 tokens of 3 values."""
    codes = jnp.array(list(itertools.product(range(CODES), repeat=4)))
    sums = []
    for order in ((0, 1, 2, 3), (2, 0, 3, 1)):
        total, masked = jnp.zeros(len(codes)), jnp.ones_like(codes, dtype=bool)
        for place in order:
            log_p = jax.nn.log_softmax(model(_text(len(codes)), codes, masked))
            total += jnp.take_along_axis(log_p[:, place], codes[:, place, None], -1)[:, 0]
            masked = masked.at[:, place].set(False)
        sums.append(float(jnp.exp(total).sum()))
        assert total.std() > 0.05  # not all alike
    assert sums == pytest.approx([1.0, 1.0], rel=1e-5)


def test_everything_given_is_seen_everywhere(model):
    codes, masked = jnp.zeros((1, 4), jnp.int32), jnp.array([[True, False, True, False]])
    before = model(_text(1), codes, masked)
    for other in (
        model(_text(1), codes.at[0, 1].set(2), masked),
        model(_text(1, seed=3), codes, masked),
        model(_text(1), codes, masked.at[0, 0].set(False)),  # a token that is there is not the mask
    ):
        assert (jnp.abs(other - before).max(-1) > 1e-4).all()


def test_padding_of_the_caption_is_not_seen(model):
    mask = jnp.array([[True, True, False]])
    codes = jnp.zeros((1, 4), jnp.int32)
    text = _text(1, mask=mask)
    other = text._replace(sequence=text.sequence.at[:, 2].add(5.0))
    np.testing.assert_allclose(model(text, codes, codes == 0), model(other, codes, codes == 0), rtol=1e-5)
