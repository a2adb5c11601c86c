"""Choosing tokens: closed forms of temperature, top-k and nucleus.

And the loop, on a chain whose answer is known.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.decoding.autoregressive import choose, filter_logits, generate

P = np.array([0.5, 0.25, 0.15, 0.1])
LOGITS = jnp.log(jnp.asarray(P, jnp.float32))


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "kept"),
    [
        (1.0, 0, 1.0, [1, 1, 1, 1]),
        (1.0, 1, 1.0, [1, 0, 0, 0]),
        (1.0, 3, 1.0, [1, 1, 1, 0]),
        (1.0, 0, 0.5, [1, 0, 0, 0]),
        (1.0, 0, 0.51, [1, 1, 0, 0]),
        (1.0, 0, 0.9, [1, 1, 1, 0]),
        (1.0, 2, 0.9, [1, 1, 0, 0]),
        (1.0, 0, 0.0, [1, 0, 0, 0]),
        (2.0, 0, 0.9, [1, 1, 1, 1]),  # the nucleus is that of the flattened distribution
    ],
)
def test_filter_keeps_what_it_should(temperature, top_k, top_p, kept):
    order = np.array([2, 0, 3, 1])  # not sorted already
    out = np.asarray(filter_logits(LOGITS[order], temperature, top_k, top_p))
    np.testing.assert_array_equal(np.isfinite(out), np.array(kept, bool)[order])
    finite = np.isfinite(out)
    np.testing.assert_allclose(
        out[finite], np.asarray(LOGITS[order])[finite] / temperature, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("top_k", "top_p"), [(0, 0.9), (0, 0.3), (5, 1.0), (5, 0.5), (100, 0.7), (1, 0.0)]
)
def test_filter_is_that_of_sorting(top_k, top_p):
    """Many rows of logits: of both signs, with ties, and with some that are impossible."""
    logits = np.random.default_rng(0).normal(1, 2, (3, 5, 64)).astype(np.float32)
    logits[:, :, 7], logits[:, :, 8] = logits[:, :, 9], -np.inf
    logits[0, 0, :9] = [0.0, -0.0] * 4 + [9.0]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    kept = np.isfinite(np.asarray(filter_logits(jnp.asarray(logits), 1.0, top_k, top_p)))
    for row in np.ndindex(3, 5):
        best = np.sort(logits[row])[::-1]
        nucleus = (
            np.flatnonzero(np.cumsum(np.sort(p[row])[::-1]) >= top_p)[0] + 1 if top_p < 1 else 64
        )
        last = best[min(max(nucleus, 1), top_k or 64, 64) - 1]
        np.testing.assert_array_equal(kept[row], (logits[row] >= last) & np.isfinite(logits[row]))


def test_frequencies_are_the_tempered_probabilities():
    keys = jax.random.split(jax.random.key(0), 20000)
    drawn = choose(keys, jnp.tile(LOGITS, (20000, 1)), temperature=0.5)
    np.testing.assert_allclose(
        np.bincount(drawn, minlength=4) / 20000, P**2 / (P**2).sum(), atol=0.012
    )
    assert (choose(keys[:50], jnp.tile(LOGITS, (50, 1)), temperature=0.0) == 0).all()


def test_each_part_is_drawn_with_a_nucleus_of_its_own():
    """The likeliest token has 0.45 alone. The other first part has 0.55, in four tokens."""
    first = jnp.log(jnp.asarray([0.45, 0.55]))
    second = jnp.log(jnp.asarray([[1.0, 1e-9, 1e-9, 1e-9], np.array([5, 2, 2, 2]) / 11]))
    joint = jnp.exp(first[:, None] + second).reshape(-1)
    keys = jax.random.split(jax.random.key(0), 4000)

    def share(**settings):
        drawn = generate(
            lambda carry, tokens, i: (jnp.tile(first + 3.0, (4000, 1)), i),
            jnp.int32(0),
            2,
            keys,
            second_of=lambda carry, part: second[part] + carry,
            **settings,
        )
        return np.bincount(np.asarray(drawn).ravel(), minlength=8) / 8000

    np.testing.assert_allclose(share(), joint, atol=0.02)
    # First part: both are in a nucleus of 0.6. Second part: 5 / 11, and all the equal ones.
    np.testing.assert_allclose(share(top_p=0.6), joint, atol=0.02)
    assert share(top_p=0.5)[:4].sum() == 0
    assert share(temperature=0.0)[4] == 1
    whole = jnp.tile(jnp.log(joint), (4000, 1))
    assert (choose(keys, whole, top_p=0.4) == 0).all(), "of whole tokens, the rest is cut off"


def test_settings_are_traced():
    compiled = jax.jit(choose)
    keys = jax.random.split(jax.random.key(0), 3)
    for settings in ((1.0, 0, 1.0), (0.5, 3, 0.9), (0.0, 1, 0.2)):
        compiled(keys, jnp.tile(LOGITS, (3, 1)), *settings)
    assert compiled._cache_size() == 1


def test_generate_follows_a_chain():
    """Token i + 1 is certain given token i: drawn sequences are walks of the cycle."""

    def logits_of(carry, tokens, i):
        previous = tokens[:, i - 1]
        assert tokens.shape[1] == 7
        after = jax.nn.one_hot((previous + 1) % 5, 5) * 100.0
        return jnp.where(i == 0, jnp.zeros_like(after), after), carry + 1

    keys = jax.random.split(jax.random.key(1), 200)
    drawn = np.asarray(generate(logits_of, jnp.int32(0), 7, keys))
    np.testing.assert_array_equal(np.diff(drawn, axis=1) % 5, np.ones((200, 6)))
    assert set(drawn[:, 0]) == set(range(5))
    np.testing.assert_array_equal(generate(logits_of, jnp.int32(0), 7, keys[30:40]), drawn[30:40])


def test_known_tokens_are_kept_and_seen_by_what_comes_after():
    """In a chain of certain steps, a token that is drawn follows the known one before it."""

    def logits_of(carry, tokens, i):
        return jax.nn.one_hot((tokens[:, i - 1] + 1) % 5, 5) * 100.0, carry

    known = jnp.array([[3, 0, 0, 1, 1, 0], [2, 2, 2, 2, 2, 2]])
    masked = jnp.array([[0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1]], bool)
    drawn = generate(logits_of, 0, 6, jax.random.split(jax.random.key(0), 2), known=(known, masked))
    np.testing.assert_array_equal(drawn, [[3, 4, 0, 1, 1, 2], [2, 2, 2, 2, 2, 3]])
