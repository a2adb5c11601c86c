"""Small layers: gradients, dropout that does not depend on the batch, positions, patches."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models import layers


@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
def test_matmul_has_the_gradients_of_the_plain_product(shape):
    rng = np.random.default_rng(0)
    x, w, g = (
        jnp.asarray(rng.normal(size=s), jnp.float32)
        for s in ((2, 5, shape[0]), shape, (2, 5, shape[1]))
    )
    ours = jax.vjp(layers.matmul, x, w)[1](g)
    plain = jax.vjp(jnp.matmul, x, w)[1](g)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_dense_is_flax_dense():
    x = jnp.ones((2, 4))
    ours, theirs = layers.Dense(3), nn.Dense(3)
    params = ours.init(jax.random.key(0), x)
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), rtol=1e-6)


class Two(nn.Module):
    @nn.compact
    def __call__(self, x, keys):
        return layers.Dropout(0.25, name="a")(x, keys), layers.Dropout(0.25, name="b")(x, keys)


def test_dropout():
    keys = jax.random.split(jax.random.key(0), 6)
    x = jnp.ones((6, 50, 40))
    a, b = Two().apply({}, x, keys)
    assert set(np.unique(a)) == {0.0, np.float32(1 / 0.75)}
    np.testing.assert_allclose(np.mean(np.asarray(a) == 0), 0.25, atol=0.02)
    assert (a != b).any() and (a[0] != a[1]).any()  # each place and each example has its own mask
    part, _ = Two().apply({}, x[2:4], keys[2:4])
    np.testing.assert_array_equal(part, a[2:4])
    same, _ = Two().apply({}, x, None)
    np.testing.assert_array_equal(same, x)


def test_positions_are_distinct_and_bounded():
    for table in (layers.sine_positions(64, 32), layers.sine_positions_2d(8, 8, 32)):
        assert table.shape == (64, 32) and np.abs(table).max() <= 1
        distance = np.linalg.norm(table[:, None] - table[None], axis=-1)
        assert distance[~np.eye(64, dtype=bool)].min() > 0.1
    grid = layers.sine_positions_2d(2, 3, 8)
    np.testing.assert_array_equal(grid[0, :4], grid[2, :4])  # the same row
    np.testing.assert_array_equal(grid[1, 4:], grid[4, 4:])  # the same column


def test_add_positions():
    x = jnp.zeros((2, 6, 8), jnp.bfloat16)
    sequence, grid = layers.add_positions(x), layers.add_positions(x, (2, 3))
    assert sequence.dtype == grid.dtype == jnp.bfloat16
    for found, table in (
        (sequence, layers.sine_positions(6, 8)),
        (grid, layers.sine_positions_2d(2, 3, 8)),
    ):
        np.testing.assert_array_equal(found, np.broadcast_to(table.astype(jnp.bfloat16), x.shape))


def test_sine_features_of_any_numbers():
    out = layers.sine_features(np.array([[0.0, 2.0, 300.0]]), 4, max_period=100.0)
    angles = np.array([0.0, 2.0, 300.0])[:, None] * [1.0, 0.1]
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    np.testing.assert_allclose(out, expected[None], atol=3e-5)


def test_sine_time_by_hand():
    out = layers.sine_time(jnp.array([0.0, 0.5]), 4)
    angles = 500.0 * np.array([1.0, 0.01])
    np.testing.assert_allclose(out[0], [1, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(out[1], [*np.cos(angles), *np.sin(angles)], atol=1e-4)


def test_space_to_depth():
    x = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    y = layers.space_to_depth(x, 2)
    assert y.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(y[1, 1, 2].reshape(2, 2, 3), x[1, 2:4, 4:6])
    np.testing.assert_array_equal(layers.depth_to_space(y, 2), x)
