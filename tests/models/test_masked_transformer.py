"""The masked transformer depends on all tokens that are given, and on none that are masked."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.families.token_loss import part_cross_entropy
from t2i_jax.models.masked_transformer import MaskedTransformer

CODES, GRID = 3, (2, 2)


def _text(batch, length=3, mask=None, seed=0):
    sequence = jax.random.normal(jax.random.key(seed), (1, length, 8)).repeat(batch, 0)
    return TextCondition(
        sequence, sequence.mean(1), jnp.ones((batch, length), bool) if mask is None else mask
    )


@pytest.fixture(scope="module", params=[False, True], ids=["", "local"])
def model(request):
    network = MaskedTransformer(CODES, GRID, width=16, depth=1, heads=2, local=request.param)
    codebook = jax.random.normal(jax.random.key(1), (CODES, 4))
    codes = jnp.zeros((1, 4), jnp.int32)
    variables = jax.jit(network.init)(jax.random.key(0), _text(1), codes, codes == 0, codebook)
    return jax.jit(
        lambda text, codes, masked: network.apply(variables, text, codes, masked, codebook)[0]
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


def test_codes_of_two_parts():
    """Over all pictures of 2 tokens with 2 x 2 values, in two orders; hidden codes are not seen."""
    network = MaskedTransformer(4, (1, 2), width=16, depth=1, heads=2, parts=(2, 2))
    codebook = jax.random.normal(jax.random.key(1), (4, 3))
    codes = jnp.array(list(itertools.product(range(4), repeat=2)))
    everything, text = jnp.ones_like(codes, dtype=bool), _text(16)
    variables = network.init(jax.random.key(0), text, codes, everything, codebook)
    for order in ((0, 1), (1, 0)):
        total, masked = jnp.zeros(16), everything
        for place in order:
            logits = network.apply(variables, text, codes, masked, codebook)
            nats, _ = part_cross_entropy(logits, codes, network.parts)
            total -= nats.sum(0)[:, place]
            masked = masked.at[:, place].set(False)
        assert float(jnp.exp(total).sum()) == pytest.approx(1, rel=1e-5)
        assert total.std() > 0.02
    (first, _), hidden = (
        network.apply(variables, text, codes, everything, codebook, method=method)
        for method in (None, "hidden")
    )
    np.testing.assert_array_equal(first[0], first[-1])
    for value in range(2):  # what is drawn from is what was learned
        seconds = network.apply(variables, hidden, codes * 0 + value, method="second_part")
        given = network.apply(variables, text, codes * 0 + 2 * value, everything, codebook)[1]
        np.testing.assert_allclose(seconds, given, atol=1e-6)


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
        return network.init_with_output(jax.random.key(0), text, codes, codes == 0, codebook)[0][0]

    np.testing.assert_allclose(run(padded), run(words), atol=1e-5)
