"""The pool: what it shows and keeps, and that it goes on as if it had never stopped."""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.adversarial.picture_pool import exchange, make_pool

run = jax.jit(exchange)


def numbered(first, count):
    """Pictures of one number each: first, first + 1, ..."""
    return (first + jnp.arange(count, dtype=jnp.float32))[:, None, None, None] * jnp.ones(
        (1, 2, 2, 3)
    )


def keys(seed, count):
    return jax.random.split(jax.random.key(seed), count)


def numbers(pictures):
    return np.asarray(pictures)[:, 0, 0, 0]


def test_until_it_is_full_it_shows_and_keeps_what_is_new():
    shown, pool = run(make_pool(6, 2), numbered(1, 4), keys(0, 4))
    np.testing.assert_array_equal(numbers(shown), [1, 2, 3, 4])
    np.testing.assert_array_equal(numbers(pool.pictures), [1, 2, 3, 4, 0, 0])
    assert pool.filled == 4


def test_afterwards_half_of_what_it_shows_is_old():
    """No picture is lost: what is shown and what is kept are all that there was."""
    _, pool = run(make_pool(50, 2), numbered(0, 50), keys(0, 50))
    shown, after = run(pool, numbered(1000, 800), keys(1, 800))
    is_new = numbers(shown) == np.arange(1000, 1800)
    assert 0.45 < is_new.mean() < 0.55
    assert (numbers(shown)[~is_new] < np.arange(1000, 1800)[~is_new]).all()
    every = np.sort(np.concatenate([numbers(shown), numbers(after.pictures)]))
    np.testing.assert_array_equal(every, [*range(50), *range(1000, 1800)])
    # The place is random: nothing of the first fifty is left after so many exchanges.
    assert (numbers(after.pictures) >= 1000).mean() > 0.9 and after.filled == 50


def test_two_calls_do_what_one_does():
    x, own = numbered(1, 20), keys(3, 20)
    shown, pool = run(make_pool(4, 2), x, own)
    first, between = run(make_pool(4, 2), x[:8], own[:8])
    second, end = run(between, x[8:], own[8:])
    np.testing.assert_array_equal(shown, np.concatenate([first, second]))
    jax.tree.map(np.testing.assert_array_equal, pool, end)


def test_an_empty_pool_shows_all():
    shown, pool = run(make_pool(0, 2), numbered(1, 3), keys(0, 3))
    np.testing.assert_array_equal(numbers(shown), [1, 2, 3])
    assert pool.pictures.shape == (0, 2, 2, 3)
