"""FLUX.1's transformer: exact sizes, packing, positions and errors. See also parity/."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models.flux_transformer import (
    VARIANTS,
    FluxTransformer,
    pack,
    positions,
    rotation_of,
    unpack,
)
from t2i_jax.models.mmdit import rotate_pairs

TINY = FluxTransformer(guidance=True, joint_depth=1, single_depth=1, heads=2, axes=(2, 2, 4))


def _inputs(height=4, width=6, channels=3, words=5, pooled=6, batch=2, guidance=True):
    r = np.random.default_rng(0)
    x = r.normal(size=(batch, height, width, channels)).astype(np.float32)
    text = TextCondition(
        r.normal(size=(batch, 4, words)).astype(np.float32),
        r.normal(size=(batch, pooled)).astype(np.float32),
        np.ones((batch, 4), bool),
        np.full((batch, 1), 3.5, np.float32) if guidance else None,
    )
    return x, np.linspace(0.2, 0.9, batch, dtype=np.float32), text


def _params(net, inputs):
    r = np.random.default_rng(1)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    return jax.tree.map(lambda a: jnp.asarray(r.normal(size=a.shape) * 0.3, jnp.float32), shapes)


@pytest.mark.parametrize(
    ("variant", "count"), [("FLUX.1-dev", 11_901_408_320), ("FLUX.1-schnell", 11_891_178_560)]
)
def test_parameter_count(variant, count):
    net = FluxTransformer(**VARIANTS[variant])
    inputs = _inputs(channels=16, words=4096, pooled=768, batch=1, guidance=net.guidance)
    params = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    assert sum(int(np.prod(a.shape)) for a in jax.tree.leaves(params)) == count


def test_packing():
    x = np.arange(4 * 6 * 3, dtype=np.float32).reshape(1, 4, 6, 3)
    tokens = pack(x)
    assert tokens.shape == (1, 6, 12)
    # Token 4 is the second square of the second row of squares.
    np.testing.assert_array_equal(tokens[0, 4, 4 * 2 + 2 * 1 + 0], x[0, 2 + 1, 2 + 0, 2])
    np.testing.assert_array_equal(tokens[0, 4, 4 * 1 + 2 * 0 + 1], x[0, 2 + 0, 2 + 1, 1])
    np.testing.assert_array_equal(unpack(tokens, 2, 3), x)


def test_positions_of_text_and_squares():
    found = positions(2, 2, 3)
    assert found.shape == (8, 3) and not found[:3].any()
    np.testing.assert_array_equal(found[-1], [0, 1, 2])
    np.testing.assert_array_equal(found[3], [0, 0, 1])


def test_rotated_products_depend_on_offsets():
    r, axes = np.random.default_rng(0), (2, 4, 6)
    place = r.integers(0, 50, (5, 3)).astype(float)
    q, k = (jnp.asarray(r.normal(size=(1, 5, 2, 12)), jnp.float32) for _ in range(2))

    def products(place):
        turned = (rotate_pairs(x, rotation_of(place, axes)) for x in (q, k))
        return jnp.einsum("bqhd,bkhd->bhqk", *turned)

    np.testing.assert_allclose(products(place + np.array([3, 5, 7])), products(place), atol=1e-4)
    np.testing.assert_allclose(
        products(np.ones((5, 3))), jnp.einsum("bqhd,bkhd->bhqk", q, k), atol=1e-4
    )
    # A quarter turn of the first pair takes (a, b) to (-b, a).
    quarter = np.array([[np.pi / 2, 0, 0]])
    x = jnp.arange(12.0).reshape(1, 1, 1, 12)
    turned = rotate_pairs(x, rotation_of(quarter, axes))[0, 0, 0]
    np.testing.assert_allclose(turned[jnp.array([0, 6])], [-1, 0], atol=1e-5)
    np.testing.assert_allclose(turned[jnp.array([1, 7])], [2, 3], atol=1e-5)


def test_guidance_and_text_change_the_output_and_text_order_does_not():
    x, t, text = inputs = _inputs()
    params, apply = _params(TINY, inputs), jax.jit(TINY.apply)
    before = apply(params, *inputs)
    for other in (
        text._replace(vector=text.vector + 1),
        text._replace(pooled=text.pooled + 1),
        text._replace(sequence=text.sequence + 1),
    ):
        assert np.abs(apply(params, x, t, other) - before).max() > 1e-3
    turned = text._replace(sequence=text.sequence[:, ::-1])
    np.testing.assert_allclose(apply(params, x, t, turned), before, atol=1e-4)


def test_bfloat16_is_close():
    inputs = _inputs()
    params = _params(TINY, inputs)
    half = jax.jit(TINY.clone(dtype=jnp.bfloat16).apply)(params, *inputs)
    full = jax.jit(TINY.apply)(params, *inputs)
    assert half.dtype == jnp.float32
    assert np.abs(half - full).max() < 0.1 * np.abs(full).max()


@pytest.mark.parametrize(
    ("net", "inputs", "message"),
    [
        (TINY, _inputs(5, 6), "5 x 6 .* squares of 2 x 2"),
        (TINY, _inputs(guidance=False), r"needs the strength of guidance as text.vector \[B, 1\]"),
        (TINY.clone(guidance=False), _inputs(), "takes no strength of guidance"),
    ],
    ids=["odd side", "no guidance", "guidance"],
)
def test_inputs_that_do_not_fit_are_named(net, inputs, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), *inputs)
