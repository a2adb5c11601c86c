"""Parallel decoding: counts in closed form; which token is drawn when.

And a toy whose joint distribution is known.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.decoding.parallel import (
    SCHEDULES,
    by_confidence,
    by_surprise,
    decode,
    mask_schedule,
    masked_count,
    probability,
    remaining_counts,
)

MANY = 20000


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_fall_from_one_to_zero(name):
    gamma = mask_schedule(name)(jnp.linspace(0, 1, 101))
    np.testing.assert_allclose(gamma[jnp.array([0, 100])], [1, 0], atol=1e-6)
    assert (jnp.diff(gamma) < 0).all()


def test_schedules_closed_forms():
    """At half of the way; cosine and arccos are each other's inverse."""
    at_half = {name: float(mask_schedule(name)(jnp.float32(0.5))) for name in SCHEDULES}
    expected = {
        "linear": 0.5,
        "square": 0.75,
        "cubic": 0.875,
        "square_root": 1 - 0.5**0.5,
        "cosine": 0.5**0.5,
        "arccos": 2 / 3,
    }
    assert at_half == pytest.approx(expected)
    r = jnp.linspace(0, 1, 11)
    np.testing.assert_allclose(mask_schedule("cosine")(mask_schedule("arccos")(r)), r, atol=1e-6)
    with pytest.raises(
        ValueError,
        match=r"no mask schedule 'cosin': there are cosine, linear.*did you mean 'cosine'",
    ):
        mask_schedule("cosin")


def test_every_step_draws_some_and_the_last_leaves_none():
    lengths = np.array([64, 65, 100, 256, 1024])
    left = jax.jit(
        lambda: {
            (name, k): remaining_counts(f, lengths, k)
            for name, f in SCHEDULES.items()
            for k in (1, 2, 7, 63, 64)
        }
    )()
    for what, rows in left.items():
        falls = np.diff(rows, prepend=lengths[:, None]) < 0
        assert (rows[:, -1] == 0).all() and falls.all(), (what, rows)


def test_counts_follow_the_schedule():
    i = np.arange(1, 9)
    np.testing.assert_array_equal(
        remaining_counts(SCHEDULES["cosine"], 64, 8), np.ceil(64 * np.cos(np.pi / 2 * i / 8) - 1e-9)
    )
    linear = remaining_counts(SCHEDULES["linear"], 60, 6)
    np.testing.assert_array_equal(linear, 60 - 10 * np.arange(1, 7))
    np.testing.assert_array_equal(
        masked_count(SCHEDULES["linear"], np.array([0.0, 0.31, 0.9, 1.0]), 10), [10, 7, 1, 0]
    )
    # Where there are fewer tokens than steps, the first steps draw none.
    rows = remaining_counts(SCHEDULES["cosine"], jnp.array([64, 8, 3, 0]), 8)
    np.testing.assert_array_equal(rows[0], remaining_counts(SCHEDULES["cosine"], 64, 8))
    np.testing.assert_array_equal(
        rows[1:], [np.arange(7, -1, -1), [3, 3, 3, 3, 3, 2, 1, 0], [0] * 8]
    )
    assert remaining_counts(SCHEDULES["cosine"], 5, 5).tolist() == [4, 3, 2, 1, 0]
    for steps in (0, 65):
        with pytest.raises(
            ValueError, match=rf"{steps} steps of parallel decoding: at least 1 and at most 64"
        ):
            remaining_counts(SCHEDULES["cosine"], 64, steps)


STATES = np.array(list(itertools.product(range(3), repeat=3)))
JOINT = np.random.default_rng(0).dirichlet(np.full(27, 0.5))
JOINT = (JOINT + 0.004) / (JOINT + 0.004).sum()
MARGINALS = [np.bincount(STATES[:, i], JOINT) for i in range(3)]
PRODUCT = np.prod([MARGINALS[i][STATES[:, i]] for i in range(3)], axis=0)


def conditionals(codes, masked):
    """The exact log p(x_i | unmasked tokens) of JOINT; -inf for other values of unmasked tokens."""
    fits = (masked[:, None] | (codes[:, None] == STATES)).all(-1)
    weight = jnp.einsum("bs,siv->biv", fits * JOINT, jax.nn.one_hot(STATES, 3))
    return jnp.log(weight / weight.sum(-1, keepdims=True))


@jax.jit
def draw(codes, masked, keys, remaining, choice_temperature, *settings):
    return decode(
        lambda *now: (conditionals(*now), None),
        codes,
        masked,
        keys,
        by_confidence(remaining, choice_temperature),
        3,
        *settings,
    )


def draw_many(seed, remaining, choice_temperature, codes=0, masked=True):
    """MANY rows in three steps, all with the same program."""
    codes, masked = (jnp.broadcast_to(jnp.asarray(x), (MANY, 3)) for x in (codes, masked))
    keys = jax.random.split(jax.random.key(seed), MANY)
    return np.asarray(
        draw(codes, masked, keys, jnp.array(remaining), choice_temperature, 1.0, 0, 1.0)
    )


def chi_square(drawn, expected):
    """The statistic of how often each of STATES was drawn, against its probability.

    States of probability 0 are left out, so there are at most 26 degrees of freedom.
    """
    times = np.bincount(drawn @ [9, 3, 1], minlength=27)
    assert times[expected == 0].sum() == 0
    times, expected = times[expected > 0], expected[expected > 0] * len(drawn)
    return ((times - expected) ** 2 / expected).sum()


LIMIT = 60.0  # exceeded by chance once in 6,000 times


def test_one_token_a_step_in_random_order_draws_the_joint():
    drawn = draw_many(3, (2, 1, 0), jnp.inf)
    assert chi_square(drawn, JOINT) < LIMIT < chi_square(drawn, PRODUCT)


def test_all_tokens_in_one_step_are_the_product_of_the_marginals():
    drawn = draw_many(1, (0, 0, 0), 0.0)
    assert chi_square(drawn, PRODUCT) < LIMIT < chi_square(drawn, JOINT)


def test_tokens_of_two_parts_draw_the_joint():
    """Two tokens of four values, each of two parts: the second is drawn given the first."""
    states = np.array(list(itertools.product(range(4), repeat=2)))
    joint = np.random.default_rng(7).dirichlet(np.full(16, 0.7))

    def first_of(codes, masked):
        fits = (masked[:, None] | (codes[:, None] == states)).all(-1)
        weight = jnp.einsum("bs,siv->biv", fits * joint, jax.nn.one_hot(states, 4))
        pairs = weight.reshape(*codes.shape, 2, 2)
        return jnp.log(pairs.sum(-1)), pairs

    def second_of(pairs, first):
        return jnp.log(jnp.take_along_axis(pairs, first[..., None, None], 2)[:, :, 0])

    codes, keys = jnp.zeros((MANY, 2), int), jax.random.split(jax.random.key(8), MANY)
    keep = by_confidence(jnp.array([1, 0]), jnp.inf)
    drawn = decode(first_of, codes, codes == 0, keys, keep, 2, second_of=second_of)
    times = np.bincount(np.asarray(drawn) @ [4, 1], minlength=16)
    assert ((times - MANY * joint) ** 2 / (MANY * joint)).sum() < 45  # 15 degrees of freedom


def test_confidence_has_an_order_that_is_not_random():
    """Keeping the most confident tokens favours the likely: exactness needs the random order."""
    assert chi_square(draw_many(0, (2, 1, 0), 0.0), JOINT) > LIMIT


def test_given_tokens_stay_and_the_others_follow_from_them():
    rng = np.random.default_rng(1)
    codes, masked = rng.integers(0, 3, (MANY, 3)), rng.random((MANY, 3)) < 0.5
    drawn = draw_many(1, (1, 0, 0), 1.0, codes, masked)
    np.testing.assert_array_equal(drawn[~masked], codes[~masked])
    given = np.where(STATES[:, 1] == 2, JOINT, 0) / MARGINALS[1][2]
    assert chi_square(draw_many(2, (1, 0, 0), jnp.inf, 2, [True, False, True]), given) < LIMIT


def test_a_row_depends_on_its_own_key_and_settings_compile_nothing():
    keys = jax.random.split(jax.random.key(4), MANY)
    codes, remaining = jnp.zeros((MANY, 3), int), jnp.array([2, 0, 0])
    first = draw(codes, codes == 0, keys, remaining, 1.0, 1.0, 0, 1.0)
    programs = draw._cache_size()
    np.testing.assert_array_equal(
        draw(codes, codes == 0, keys[::-1], remaining, 1.0, 1.0, 0, 1.0), first[::-1]
    )
    assert (draw(codes, codes == 0, keys, remaining, jnp.inf, 0.5, 2, 0.9) != first).any()
    assert draw._cache_size() == programs


def test_probabilities_sum_to_one_in_every_order():
    """In every order, the product of the conditionals is the joint distribution, and sums to 1."""
    for order in itertools.permutations(range(3)):
        probability, masked = np.ones(27), np.ones((27, 3), bool)
        for place in order:
            p = np.exp(conditionals(jnp.asarray(STATES), jnp.asarray(masked)))
            np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
            probability *= p[np.arange(27), place, STATES[:, place]]
            masked[:, place] = False
        np.testing.assert_allclose(probability, JOINT, rtol=1e-4)


# The probability of the network's most likely token, at each position.
SURE = np.array([0.9, 0.5, 0.7, 0.99, 0.6, 0.8])


def when(codes, masked):
    """The most likely token is the number of tokens drawn already: it says when each was drawn."""
    now = jax.nn.one_hot((~masked).sum(-1), 6)[:, None]
    return jnp.log(now * SURE[:, None] + (1 - now) * (1 - SURE[:, None]) / 5), None


@jax.jit
def order_of(remaining, choice_temperature, masked):
    codes, keys = jnp.zeros((6000, 6), int), jax.random.split(jax.random.key(0), 6000)
    keep = by_confidence(remaining, choice_temperature)
    return decode(when, codes, jnp.tile(masked, (6000, 1)), keys, keep, 3, 0.0)


def test_the_most_confident_are_kept():
    """One, then two, then three tokens: by confidence, or in an order that is uniform."""
    remaining, everything = jnp.array([5, 3, 0]), jnp.ones(6, bool)
    assert (order_of(remaining, 0.0, everything) == jnp.array([1, 3, 3, 0, 3, 1])).all()
    drawn = np.asarray(order_of(remaining, jnp.inf, everything))
    assert (np.sort(drawn) == [0, 1, 1, 3, 3, 3]).all()
    np.testing.assert_allclose((drawn == 0).mean(0), 1 / 6, atol=0.02)


def test_noise_of_the_choice_falls_linearly():
    """Gumbel noise of scale s keeps a before b with probability a^(1/s) / (a^(1/s) + b^(1/s)).

    In the first step s is 2/3 of 1.5. Four positions are given.
    """
    drawn = np.asarray(order_of(jnp.array([1, 0, 0]), 1.5, jnp.arange(6) < 2))[:, :2] == 4
    np.testing.assert_allclose(drawn.mean(0), np.array([0.9, 0.5]) / 1.4, atol=0.02)


def test_the_certain_and_the_most_surprising_are_kept():
    """At first the three surest and the least sure; then the next least sure; then the rest."""
    entropy = -SURE * np.log(SURE) - (1 - SURE) * np.log((1 - SURE) / 5)
    codes, masked = jnp.zeros((1, 6), int), jnp.ones((1, 6), bool)
    keys = jax.random.split(jax.random.key(0), 1)
    for temperature in (0.0, 1.0):
        keep = by_surprise(entropy[5] + 1e-3, temperature)
        assert decode(when, codes, masked, keys, keep, 3, 0.0).tolist() == [[0, 0, 5, 0, 4, 0]]
    # At a low temperature all are certain: 0.5 against five times 0.1 becomes 0.992, which has an
    # entropy of 0.06.
    assert decode(when, codes, masked, keys, by_surprise(0.1, 0.25), 3, 0.0).tolist() == [[0] * 6]
    logits, drawn = when(codes, masked)[0], jnp.array([[0, 0, 3, 0, 0, 2]])  # likeliest is 0

    def kept(sure, masked):
        return np.flatnonzero(by_surprise(sure)(0, ((logits, drawn),), masked, keys)[0]).tolist()

    assert kept(0.0, masked) == [2]
    assert kept(0.0, masked & (drawn != 3)) == [5]
    # A part of which all is certain changes nothing; entropies of parts are added, and a token is
    # surprising if one of its parts is.
    parts = ((logits, drawn), (jnp.array([0.0, -jnp.inf]), jnp.zeros((1, 6), int)))
    assert by_surprise(0.0)(0, parts, masked, keys).tolist() == [[False] * 2 + [True] + [False] * 3]
    parts = ((logits, drawn * 0), (logits, drawn))
    bound = 2 * entropy[0] + 1e-3
    assert by_surprise(bound)(0, parts, masked, keys).tolist() == [
        [True, False, True, True, False, False]
    ]
    # The surprising tokens 2 and 5 are certain; of the others, token 1 has the greatest entropy.
    assert kept(entropy[2] + 1e-3, masked) == [0, 1, 2, 3, 5]


def test_surprise_wants_as_many_steps_as_there_are_surprises():
    """Three tokens that are always equal: one step draws them apart, two steps do not.

    The first token kept is 0 only if all three are.
    """
    alike, p = np.array([0, 13, 26]), np.array([0.5, 0.3, 0.2])

    def both(codes, masked):
        seen = jnp.where(masked, -1, codes).max(-1)[:, None, None]
        logits = jnp.where((seen < 0) | (seen == jnp.arange(3)), jnp.log(p), -jnp.inf)
        return jnp.broadcast_to(logits, (MANY, 3, 3)), None

    keys, codes = jax.random.split(jax.random.key(5), MANY), jnp.zeros((MANY, 3), int)
    one, two = (
        np.asarray(
            jax.jit(lambda s=s: decode(both, codes, codes == 0, keys, by_surprise(0.1), s))()
        )
        @ [9, 3, 1]
        for s in (1, 2)
    )
    assert np.isin(one, alike).mean() < 0.2 and np.isin(two, alike).all()
    first = np.array([p[0] ** 3, (1 - p[0] ** 3) * 0.6, (1 - p[0] ** 3) * 0.4])
    np.testing.assert_allclose(np.bincount(two // 13, minlength=3) / MANY, first, atol=0.015)


def test_a_doubted_token_is_masked_and_drawn_again():
    """The network first draws 1 at the middle place, and doubts it once it sees its neighbours.

    With a doubt of 0 it stays. A token that was given stays in any case.
    """

    def logits_of(codes, masked):
        seen = (~masked).sum(-1, keepdims=True) > 1
        of_middle = jnp.where(seen[..., None], jnp.array([5.0, -5.0]), jnp.array([-5.0, 5.0]))
        others = jnp.broadcast_to(jnp.array([9.0, -9.0]), (*codes.shape, 2))
        return others.at[:, 1].set(of_middle[:, 0]), None

    def keep(step, parts, masked, keys):
        return jnp.arange(3) == jnp.array([1, 0, 2, 1])[step]  # the middle, the two others, again

    def drawn(doubt, masked=(True, True, True), codes=(0, 0, 0)):
        given = jnp.array([codes]), jnp.array([masked])
        keys = jax.random.split(jax.random.key(0), 1)
        return decode(logits_of, *given, keys, keep, 4, temperature=0, doubt=doubt)[0]

    np.testing.assert_array_equal(drawn(0.0), [0, 1, 0])
    np.testing.assert_array_equal(drawn(0.1), [0, 0, 0])
    np.testing.assert_array_equal(drawn(0.1, (True, False, True), (0, 1, 0)), [0, 1, 0])


def test_the_probability_of_a_code_of_two_parts_is_the_product():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(1, 2, 3)), rng.normal(size=(3, 4))
    codes = jnp.array([[5, 10]])  # parts (1, 1) and (2, 2)
    found = probability(codes, jnp.asarray(first), lambda part: jnp.asarray(second)[part])
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (first, second))
    np.testing.assert_allclose(found[0], [p[0, 0, 1] * q[1, 1], p[0, 1, 2] * q[2, 2]], rtol=1e-5)
