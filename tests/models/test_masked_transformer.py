"""The masked transformer depends on all tokens that are given, and on none that are masked."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models.masked_transformer import MaskedTransformer

CODES, GRID = 3, (2, 2)


def _text(batch, length=3, mask=None, seed=0):
    sequence = jax.random.normal(jax.random.key(seed), (1, length, 8)).repeat(batch, 0)
    return TextCondition(
        sequence, sequence.mean(1), jnp.ones((batch, length), bool) if mask is None else mask
    )


@pytest.fixture(scope="module")
def model():
    network = MaskedTransformer(CODES, GRID, width=16, depth=1, heads=2)
    codebook = jax.random.normal(jax.random.key(1), (CODES, 4))
    codes = jnp.zeros((1, 4), jnp.int32)
    variables = jax.jit(network.init)(jax.random.key(0), _text(1), codes, codes == 0, codebook)
    return jax.jit(
        lambda text, codes, masked: network.apply(variables, text, codes, masked, codebook)
    )


def test_probabilities_of_all_pictures_sum_to_one_in_any_order(model):
    """By the chain rule, over all 81 pictures of 4 tokens with 3 values.

    It only holds if masked tokens have no influence.
    """
    codes = jnp.array(list(itertools.product(range(CODES), repeat=4)))
    sums = []
    for order in ((0, 1, 2, 3), (2, 0, 3, 1)):
        total, masked = jnp.zeros(len(codes)), jnp.ones_like(codes, dtype=bool)
        for place in order:
            log_p = jax.nn.log_softmax(model(_text(len(codes)), codes, masked))
            total += jnp.take_along_axis(log_p[:, place], codes[:, place, None], -1)[:, 0]
            masked = masked.at[:, place].set(False)
        sums.append(float(jnp.exp(total).sum()))
        assert total.std() > 0.05  # they are not all equal
    assert sums == pytest.approx([1.0, 1.0], rel=1e-5)


def test_what_is_given_has_an_influence_everywhere(model):
    codes, masked = jnp.zeros((1, 4), jnp.int32), jnp.array([[True, False, True, False]])
    before = model(_text(1), codes, masked)
    for other in (
        model(_text(1), codes.at[0, 1].set(2), masked),
        model(_text(1, seed=3), codes, masked),
        model(_text(1), codes, masked.at[0, 0].set(False)),  # a given token is not a mask
    ):
        assert (jnp.abs(other - before).max(-1) > 1e-4).all()


def test_padding_of_the_caption_has_no_influence(model):
    mask = jnp.array([[True, True, False]])
    codes = jnp.zeros((1, 4), jnp.int32)
    text = _text(1, mask=mask)
    other = text._replace(sequence=text.sequence.at[:, 2].add(5.0))
    np.testing.assert_allclose(
        model(text, codes, codes == 0), model(other, codes, codes == 0), rtol=1e-5
    )


def test_with_rope_a_caption_gets_no_other_positions():
    """Then only distances have an influence: padding before the caption changes nothing."""
    codes, codebook, words = (
        jnp.zeros((1, 4), jnp.int32),
        jax.random.normal(jax.random.key(1), (CODES, 4)),
        _text(1),
    )
    padded = TextCondition(
        jnp.pad(words.sequence, ((0, 0), (1, 0), (0, 0))),
        words.pooled,
        jnp.array([[False, True, True, True]]),
    )

    network = MaskedTransformer(CODES, GRID, width=16, depth=1, heads=2, block={"rope": 100.0})

    @jax.jit
    def run(text):
        return network.init_with_output(jax.random.key(0), text, codes, codes == 0, codebook)[0]

    np.testing.assert_allclose(run(padded), run(words), atol=1e-5)
