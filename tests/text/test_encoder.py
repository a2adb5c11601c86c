"""Dropping captions: the right rate, the right replacement, one key an example."""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.families.conditioning import drop_captions, join, null_like
from t2i_jax.text.encoder import masked_mean

NULL = {
    "tokens": jnp.array([1, 0, 0]),
    "mask": jnp.array([True, False, False]),
    "features": jnp.full((3, 2), 0.5, jnp.float16),
}


def test_rate_and_replacement():
    text = {"tokens": jnp.full((4000, 3), 7), "mask": jnp.ones((4000, 3), bool)}
    keys = jax.random.split(jax.random.key(0), 4000)
    dropped = drop_captions(text, NULL, keys, 0.3)
    gone = np.asarray(dropped["tokens"][:, 0] == 1)
    np.testing.assert_allclose(gone.mean(), 0.3, atol=0.03)
    np.testing.assert_array_equal(dropped["tokens"][gone], np.tile([1, 0, 0], (gone.sum(), 1)))
    np.testing.assert_array_equal(dropped["mask"].sum(1), np.where(gone, 1, 3))
    part = drop_captions(jax.tree.map(lambda x: x[5:9], text), NULL, keys[5:9], 0.3)
    np.testing.assert_array_equal(part["tokens"], dropped["tokens"][5:9])
    assert drop_captions(text, NULL, keys, 0.0) is text


def test_features_computed_beforehand_are_dropped_with_their_caption():
    text = {"tokens": jnp.full((64, 3), 7), "features": jnp.ones((64, 3, 2), jnp.float16)}
    dropped = drop_captions(text, NULL, jax.random.split(jax.random.key(0), 64), 0.5)
    gone = np.asarray(dropped["tokens"][:, 0] == 1)
    assert 0 < gone.sum() < 64 and dropped["features"].dtype == jnp.float16
    np.testing.assert_array_equal(
        dropped["features"], np.where(gone[:, None, None], 0.5, 1.0) * np.ones((1, 3, 2))
    )


def test_masked_mean():
    x = jnp.array([[[1.0, 2.0], [3.0, 4.0], [99.0, 99.0]]])
    np.testing.assert_allclose(masked_mean(x, jnp.array([[True, True, False]])), [[2.0, 3.0]])


def test_null_like():
    text = {"tokens": jnp.full((5, 3), 7), "mask": jnp.ones((5, 3), bool)}
    np.testing.assert_array_equal(null_like(text, NULL)["tokens"], np.tile([1, 0, 0], (5, 1)))
    weighted = {**text, "weight": jnp.ones((5, 3))}
    assert null_like(weighted, NULL).keys() == {"tokens", "mask"}


def test_texts_of_different_lengths_are_repeated_until_they_are_equally_long():
    one = {"tokens": jnp.array([[1, 2]]), "mask": jnp.array([[True, False]])}
    two = {"tokens": jnp.array([[3, 4, 5]]), "mask": jnp.ones((1, 3), bool)}
    both = join(one, two)
    np.testing.assert_array_equal(both["tokens"], [[1, 2, 1, 2, 1, 2], [3, 4, 5, 3, 4, 5]])
    np.testing.assert_array_equal(both["mask"], [[1, 0, 1, 0, 1, 0], [1] * 6])


def test_texts_without_weights_get_1():
    one = {"tokens": jnp.array([[1, 2]]), "mask": jnp.ones((1, 2), bool)}
    weighted = {**one, "weight": jnp.array([[1.0, 1.5]])}
    for pair, expected in (
        ((one, weighted), [[1, 1], [1, 1.5]]),
        ((weighted, one), [[1, 1.5], [1, 1]]),
    ):
        np.testing.assert_array_equal(join(*pair)["weight"], expected)
    assert "weight" not in join(one, one)
