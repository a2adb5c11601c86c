"""Attention against the textbook formula, its mask and its cache."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.attention import (
    INTERMEDIATES,
    WEIGHTS,
    Attention,
    attend,
    attention_weights,
    layer_norm,
    rotate,
)
from t2i_jax.models.block_stack import apply_blocks

RNG = np.random.default_rng(0)
Q, K, V = (jnp.asarray(RNG.normal(size=(2, n, 3, 4)), jnp.float32) for n in (5, 7, 7))


def textbook(q, k, v, mask):
    logits = np.einsum("bqhd,bkhd->bhqk", q, k) / 2.0
    logits = np.where(mask, logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize("shape", [(2, 7), (2, 1, 5, 7), (1, 1, 1, 7)])
def test_attend(shape):
    mask = RNG.random(shape) < 0.6
    mask[..., 0] = True
    full = mask[:, None, None, :] if mask.ndim == 2 else mask
    np.testing.assert_allclose(
        attend(Q, K, V, jnp.asarray(mask)), textbook(Q, K, V, full), atol=1e-5
    )
    np.testing.assert_allclose(attend(Q, K, V), textbook(Q, K, V, True), atol=1e-5)
    np.testing.assert_allclose(attend(Q, K, V), jax.nn.dot_product_attention(Q, K, V), atol=1e-5)


@pytest.mark.parametrize("shape", [None, (2, 7), (2, 1, 5, 7), (1, 1, 1, 7)])
def test_grouped_heads_are_full_heads_with_repeated_keys(shape):
    q = jnp.asarray(RNG.normal(size=(2, 5, 6, 4)), jnp.float32)
    mask = None if shape is None else jnp.asarray(RNG.random(shape) < 0.6)
    full = attend(q, jnp.repeat(K, 2, axis=2), jnp.repeat(V, 2, axis=2), mask)
    np.testing.assert_allclose(attend(q, K, V, mask), full, atol=1e-6)


def test_rotate_multiplies_by_complex_numbers_and_starts_with_one():
    x = jnp.asarray(RNG.normal(size=(2, 5, 3, 8)), jnp.float32)
    np.testing.assert_array_equal(rotate(x, 0, 100.0)[:, 0], x[:, 0])
    turns = np.exp(1j * np.arange(3, 8)[:, None] * 100.0 ** (-np.arange(4) / 4))
    turned = (np.asarray(x[..., :4]) + 1j * np.asarray(x[..., 4:])) * turns[:, None]
    np.testing.assert_allclose(
        rotate(x, 3, 100.0), np.concatenate([turned.real, turned.imag], -1), atol=1e-5
    )


def test_rotated_products_depend_on_distance_only():
    q, k = (jnp.asarray(RNG.normal(size=(1, 1, 2, 8)), jnp.float32) for _ in "qk")

    def product(at, other):
        return jnp.einsum("bqhd,bkhd->h", rotate(q, at, 10000.0), rotate(k, other, 10000.0))

    np.testing.assert_allclose(product(3, 8), product(40, 45), atol=1e-5)
    assert np.abs(product(3, 8) - product(3, 9)).max() > 1e-2


def test_a_query_without_keys_gives_zeros_and_finite_gradients():
    mask = jnp.zeros((2, 7), bool)
    np.testing.assert_array_equal(attend(Q, K, V, mask), np.zeros(Q.shape))
    grads = jax.grad(lambda q: attend(q, K, V, mask).sum())(Q)
    assert np.isfinite(grads).all()


def test_with_a_cache_attention_continues_where_it_stopped():
    module = Attention(2)
    x = jnp.asarray(RNG.normal(size=(2, 6, 8)), jnp.float32)
    causal = jnp.tril(jnp.ones((6, 6), bool))[None, None]
    params = module.init(jax.random.key(0), x)
    whole, none = module.apply(params, x, mask=causal)
    assert none is None
    cache = {name: jnp.zeros((2, 2, 6, 4)) for name in "kv"}
    first, cache = module.apply(params, x[:, :4], mask=causal[:, :, :4], cache=cache, position=0)
    second, _ = module.apply(params, x[:, 4:], mask=causal[:, :, 4:], cache=cache, position=4)
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, atol=1e-5)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width of 8 is not a multiple of 3 heads"):
        Attention(3).init(jax.random.key(0), jnp.zeros((1, 2, 8)))


def test_invalid_sizes_raise_errors():
    def init(**fields):
        Attention(4, **fields).init(jax.random.key(0), jnp.zeros((1, 2, 12)))

    with pytest.raises(
        ValueError, match="4 heads cannot share the keys of 3: kv_heads must divide heads"
    ):
        init(kv_heads=3)
    with pytest.raises(
        ValueError, match=r"rope is 10000\.0 for heads of 3 channels: .* an even number"
    ):
        init(rope=10000.0)
    with pytest.raises(
        ValueError, match=r"rope is True for heads of 6 channels: it is 0 \(none\) or theta"
    ):
        init(rope=True, head_dim=6)


def test_layer_norm():
    x = jnp.asarray(RNG.normal(3.0, 5.0, (4, 64)), jnp.float32)
    y = np.asarray(layer_norm(x))
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(-1), 1, rtol=1e-4)


def test_a_bias_is_added_to_the_logits():
    r = np.random.default_rng(0)
    q, k, v = (jnp.asarray(r.normal(size=(2, 5, 3, 4)), jnp.float32) for _ in range(3))
    bias = jnp.asarray(r.normal(size=(1, 3, 5, 5)), jnp.float32)
    mask = np.arange(5) < np.array([[5], [3]])
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2 + bias
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], logits, -jnp.inf), -1)
    np.testing.assert_allclose(
        attend(q, k, v, mask, bias), jnp.einsum("bhqk,bkhd->bqhd", weights, v), atol=1e-5
    )
    with pytest.raises(ValueError, match="a bias needs keys for each head: 3 heads, 1 of k"):
        attend(q, k[:, :, :1], v[:, :, :1], bias=bias)


@pytest.mark.parametrize("shape", [None, (2, 7), (2, 1, 5, 7)])
def test_the_weights_of_values_that_are_the_same_for_all_heads(shape):
    """The mean over the heads of what `attend` gives is then the product of weights and values."""
    mask = None if shape is None else jnp.asarray(RNG.random(shape) < 0.6)
    weights = attention_weights(Q, K, mask)
    value = V[:, :, :1]
    output = attend(Q, K, jnp.repeat(value, 3, axis=2), mask).mean(2)
    np.testing.assert_allclose(weights @ value[:, :, 0], output, atol=1e-5)
    shared = attention_weights(Q, K[:, :, :1], mask)
    repeated = attention_weights(Q, jnp.repeat(K[:, :, :1], 3, axis=2), mask)
    np.testing.assert_allclose(shared, repeated, atol=1e-6)


def test_a_query_that_may_use_no_key_has_weights_of_zero():
    weights = attention_weights(Q, K, jnp.asarray([[True] * 7, [False] * 7]))
    np.testing.assert_allclose(weights.sum(-1), [[1] * 5, [0] * 5], atol=1e-6)


class Stack(nn.Module):
    """Two layers of attention, in a loop or not."""

    scan: bool

    @nn.compact
    def __call__(self, x):
        return apply_blocks(self, Layer, (), 2, x, scan=self.scan)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Attention(2, name="attention")(x)[0]


@pytest.mark.parametrize("scan", [False, True])
def test_weights_are_shown_to_a_caller_that_asks(scan):
    x = jnp.asarray(RNG.normal(size=(2, 5, 8)), jnp.float32)
    stack = Stack(scan)
    variables = stack.init(jax.random.key(0), x)
    assert set(variables) == {"params"}
    output, shown = stack.apply(variables, x, mutable=[INTERMEDIATES])
    np.testing.assert_allclose(output, stack.apply(variables, x), atol=1e-5)
    for i in range(2):
        (weights,) = shown[INTERMEDIATES][f"block_{i}"]["attention"][WEIGHTS]
        assert weights.shape == (2, 5, 5)
        np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
