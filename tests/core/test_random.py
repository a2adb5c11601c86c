"""Random keys are independent of each other, and of how a batch is split."""

import jax
import numpy as np

from t2i_jax.core.random import derive_keys, draw_normal, example_keys, once_a_step_key, split_keys

KEYS = jax.random.split(jax.random.key(0), 3)


def test_split_keys_are_all_different():
    parts = split_keys(KEYS, 4)
    data = np.concatenate([jax.random.key_data(part) for part in parts])
    assert len(np.unique(data, axis=0)) == 12


def test_a_derived_key_depends_on_its_own_key_and_the_number_only():
    one, two = (jax.random.key_data(derive_keys(KEYS, number)) for number in (1, 2))
    np.testing.assert_array_equal(jax.random.key_data(derive_keys(KEYS[1:], 1)), one[1:])
    assert (one != two).any(1).all()


def test_example_keys_depend_on_step_and_place_only():
    rng = jax.random.key(3)
    keys = jax.random.key_data(example_keys(rng, 5, 8))
    assert len(np.unique(keys, axis=0)) == 8
    np.testing.assert_array_equal(keys[:4], jax.random.key_data(example_keys(rng, 5, 4)))
    assert (keys != jax.random.key_data(example_keys(rng, 6, 8))).any(1).all()
    split = jax.pmap(
        lambda _: jax.random.key_data(example_keys(rng, 5, 2, "b")), "b", devices=jax.devices()[:4]
    )
    np.testing.assert_array_equal(split(np.zeros(4)).reshape(8, -1), keys)


def test_the_key_of_a_step_is_none_of_its_examples():
    rng = jax.random.key(3)
    keys = jax.random.key_data(example_keys(rng, 5, 64))
    assert (jax.random.key_data(once_a_step_key(rng, 5)) != keys).any(1).all()
    later = jax.random.key_data(once_a_step_key(rng, 6))
    assert (jax.random.key_data(once_a_step_key(rng, 5)) != later).any()


def test_noise_of_an_example_is_that_of_its_key():
    keys = jax.random.split(jax.random.key(0), 5)
    noise = draw_normal(keys, (2, 3))
    assert noise.shape == (5, 2, 3)
    np.testing.assert_array_equal(noise[3], jax.random.normal(keys[3], (2, 3)))
