"""Beam search against all sequences of a toy; sequences that end; the length penalty by hand."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.decoding.autoregressive import generate
from t2i_jax.decoding.beam import beam_search, length_penalty, stop_at_end

PAD, END, SIZE, LENGTH, ROWS = 0, 1, 5, 4, 3
RNG = np.random.default_rng(9)
# A language with a carried state: a beam that took the state of another one would be noticed.
START, RECUR, INPUT, OUT = (
    RNG.normal(size=shape) for shape in ((ROWS, 6), (6, 6), (SIZE, 6), (6, SIZE))
)
OUT[:, END] *= 0.3


def logits_of(state, tokens, i):
    before = jnp.where(i > 0, jnp.asarray(INPUT)[tokens[:, i - 1]], 0.0)
    state = jnp.tanh(state @ RECUR + before)
    return 2 * state @ OUT, state


def all_sequences():
    """{sequence: log-probabilities [ROWS]} of all sequences of at most LENGTH tokens, END last."""
    found = {}
    for count in range(LENGTH):
        for words in itertools.product(range(END + 1, SIZE), repeat=count):
            state, total, before = START, 0.0, None
            for place, token in enumerate([*words, END]):
                state = np.tanh(state @ RECUR + (0.0 if before is None else INPUT[before]))
                logits = 2 * state @ OUT
                logits[:, PAD] = -np.inf
                if place < LENGTH - 1:  # the last can be nothing else
                    total = total + logits[:, token] - np.log(np.exp(logits).sum(1))
                before = token
            found[(*words, END, *[PAD] * (LENGTH - count - 1))] = np.broadcast_to(total, ROWS)
    return found


@functools.partial(jax.jit, static_argnames="beams")
def searched(start, beams, alpha):
    return beam_search(stop_at_end(logits_of, END), start, LENGTH, beams, alpha)


def run(beams, alpha=0.0):
    return [np.asarray(x) for x in searched(jnp.asarray(START, jnp.float32), beams, alpha)]


@jax.jit
def written(start, temperature, top_p):
    keys = jax.random.split(jax.random.key(0), len(start))
    return generate(stop_at_end(logits_of, END), start, LENGTH, keys, temperature, 0, top_p)


def drawn(temperature, top_p=1.0):
    """3,000 sequences of each row."""
    start = jnp.asarray(np.repeat(START, 3000, 0), jnp.float32)
    return np.asarray(written(start, temperature, top_p)).reshape(ROWS, 3000, LENGTH)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_all_sequences_in_the_right_order(alpha):
    truth = all_sequences()
    tokens, scores = run(48, alpha)
    assert len(truth) == 40
    for row in range(ROWS):
        expected = {s: p[row] / ((5 + np.count_nonzero(s)) / 6) ** alpha for s, p in truth.items()}
        found = {
            tuple(s.tolist()): score
            for s, score in zip(tokens[row, :40], scores[row, :40], strict=True)
        }
        assert found.keys() == expected.keys()
        np.testing.assert_allclose([found[s] for s in expected], list(expected.values()), rtol=1e-4)
        assert (np.diff(scores[row, :40]) <= 0).all() and (scores[row, 40:] == -np.inf).all()
    if alpha == 0:
        np.testing.assert_allclose(np.exp(scores).sum(1), 1.0, rtol=1e-5)


def test_one_beam_is_greedy_and_more_are_no_worse():
    truth = all_sequences()
    tokens, scores = run(1)
    np.testing.assert_array_equal(np.broadcast_to(tokens, (ROWS, 3000, LENGTH)), drawn(0.0))
    best = [max(p[row] for p in truth.values()) for row in range(ROWS)]
    assert (scores[:, 0] < np.array(best) - 1e-3).any()  # else this toy could not tell
    np.testing.assert_allclose(run(48)[1][:, 0], best, rtol=1e-4)


def test_drawn_sequences_have_their_probabilities():
    truth, sequences = all_sequences(), drawn(1.0)
    for row in range(ROWS):
        found, counts = np.unique(sequences[row], axis=0, return_counts=True)
        share = {tuple(s.tolist()): n / 3000 for s, n in zip(found, counts, strict=True)}
        assert share.keys() <= truth.keys()
        np.testing.assert_allclose(
            [share.get(s, 0) for s in truth], [np.exp(p[row]) for p in truth.values()], atol=0.03
        )
    np.testing.assert_array_equal(drawn(1.0, 1e-6), drawn(0.0))


def test_length_penalty_by_hand():
    np.testing.assert_allclose(length_penalty(jnp.array([1, 7, 13]), 1.0), [1, 2, 3])
    np.testing.assert_allclose(length_penalty(7, 0.5), 2**0.5)
    assert length_penalty(99, 0.0) == 1

    def two(carry, tokens, i):
        """END (probability 0.5), a word and END (0.5 x 0.9), or two words and END (0.5 x 0.1)."""
        chances = jnp.where(i == 0, jnp.array([0, 0.5, 0.5]), jnp.array([0, 0.9, 0.1]))
        return jnp.broadcast_to(jnp.log(chances), (len(tokens), 3)), carry

    likeliest = jax.jit(lambda alpha: beam_search(stop_at_end(two, END), jnp.zeros(1), 3, 4, alpha))

    def best(alpha):
        tokens, scores = likeliest(alpha)
        return tokens[0, 0].tolist(), float(scores[0, 0])

    assert best(0.0) == ([1, 0, 0], pytest.approx(np.log(0.5)))
    assert best(1.0) == ([2, 1, 0], pytest.approx(np.log(0.45) * 6 / 7))
