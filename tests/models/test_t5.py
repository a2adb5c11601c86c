"""T5's encoder: exact sizes, distances, and what padding may influence. See also parity/."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.t5 import VARIANTS, T5Encoder, distance_buckets

TINY = T5Encoder(width=12, depth=2, heads=3, mlp=20, head_dim=4, vocab_size=30)


def _params(net, tokens):
    r = np.random.default_rng(0)
    shapes = jax.eval_shape(net.init, jax.random.key(0), tokens)
    return jax.tree.map(lambda a: jnp.asarray(r.normal(size=a.shape) * 0.5, jnp.float32), shapes)


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("v1.1-small", 35_332_800),
        ("v1.1-base", 109_628_544),
        ("v1.1-large", 341_231_104),
        ("v1.1-XL", 1_223_527_424),
        ("v1.1-XXL", 4_762_310_656),
    ],
)
def test_parameter_count(variant, count):
    net, tokens = T5Encoder(**VARIANTS[variant]), jnp.zeros((1, 2), jnp.int32)
    params = jax.eval_shape(net.init, jax.random.key(0), tokens)["params"]
    assert sum(int(np.prod(a.shape)) for a in jax.tree.leaves(params)) == count


def test_distances_share_groups_that_grow():
    groups = distance_buckets(300, 32, 128)
    past, future = groups[-1, ::-1], groups[0]  # at distance 0, 1, 2, ...
    np.testing.assert_array_equal(past[:8], np.arange(8))
    np.testing.assert_array_equal(future[1:], past[1:] + 16)
    # Between 8 and 128 there are 8 groups, whose limits grow by the factor sqrt(2).
    limits = np.flatnonzero(np.diff(past[8:])) + 9
    np.testing.assert_array_equal(limits, np.ceil(8 * 2 ** (np.arange(1, 8) / 2)))
    assert past[127] == 15 and (past[128:] == 15).all()


def test_masked_tokens_influence_no_other():
    tokens = np.random.default_rng(0).integers(0, 30, (2, 9))
    mask = np.arange(9) < np.array([[9], [4]])
    params, apply = _params(TINY, tokens), jax.jit(TINY.apply)
    expected = apply(params, tokens, mask)
    changed = np.where(mask, tokens, 7)
    np.testing.assert_allclose(apply(params, changed, mask)[mask], expected[mask], atol=1e-5)
    np.testing.assert_allclose(apply(params, tokens[1:, :4])[0], expected[1, :4], atol=1e-5)
    assert np.abs(apply(params, changed) - apply(params, tokens))[1, :4].max() > 1e-3


def test_positions_are_relative():
    """The vector of a token depends on the distances to the others, not on where they begin."""
    tokens = np.array([[5, 6, 7, 8, 0, 0], [0, 0, 5, 6, 7, 8]])
    mask = tokens > 0
    params = _params(TINY, tokens)
    found = jax.jit(TINY.apply)(params, tokens, mask)
    np.testing.assert_allclose(found[0, :4], found[1, 2:], atol=1e-5)
    swapped = jax.jit(TINY.apply)(params, tokens[:, ::-1], mask[:, ::-1])
    assert np.abs(swapped[1, 3::-1] - found[0, :4]).max() > 1e-2  # the order counts


def test_bfloat16_is_close():
    tokens = np.random.default_rng(0).integers(0, 30, (2, 9))
    params = _params(TINY, tokens)
    half = jax.jit(TINY.clone(dtype=jnp.bfloat16).apply)(params, tokens)
    full = jax.jit(TINY.apply)(params, tokens)
    assert half.dtype == jnp.bfloat16
    assert np.abs(half - full).max() < 0.1 * np.abs(full).max()
