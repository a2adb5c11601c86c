"""Stable Diffusion 3's transformer: exact sizes, positions and errors. See also parity/."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models.sd3_transformer import VARIANTS, SD3Transformer

TINY = SD3Transformer(depth=2, heads=2, qk_norm=True, head_dim=4, grid=4, max_grid=8)


def _inputs(height=8, width=8, channels=3, words=5, pooled=6, batch=2):
    r = np.random.default_rng(0)
    x = r.normal(size=(batch, height, width, channels)).astype(np.float32)
    text = TextCondition(
        r.normal(size=(batch, 4, words)).astype(np.float32),
        r.normal(size=(batch, pooled)).astype(np.float32),
        np.ones((batch, 4), bool),
    )
    return x, np.linspace(0.2, 0.9, batch, dtype=np.float32), text


def _params(net, inputs):
    r = np.random.default_rng(1)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    return jax.tree.map(lambda a: jnp.asarray(r.normal(size=a.shape) * 0.3, jnp.float32), shapes)


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("SD3-medium", 2_028_328_000),
        ("SD3.5-medium", 2_243_171_520),
        ("SD3.5-large", 8_056_627_520),
    ],
)
def test_parameter_count(variant, count):
    """As the PyTorch originals count them: the table of positions is a buffer there."""
    net = SD3Transformer(**VARIANTS[variant])
    inputs = jax.eval_shape(lambda: _inputs(channels=16, words=4096, pooled=2048, batch=1))
    params = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    assert params.pop("positions").shape == (1, net.max_grid**2, net.heads * 64)
    assert sum(int(np.prod(a.shape)) for a in jax.tree.leaves(params)) == count


def test_the_table_of_positions():
    inputs = _inputs()
    table = jax.jit(lambda: TINY.init(jax.random.key(0), *inputs)["params"]["positions"])()
    table = np.asarray(table).reshape(8, 8, 8)
    # Neighbours are half a cell of the training grid apart: 8 positions cover 4 cells.
    np.testing.assert_allclose(table[3, 6, 0], np.sin(3.0), atol=1e-6)  # column
    np.testing.assert_allclose(table[3, 6, 4], np.sin(1.5), atol=1e-6)  # row
    np.testing.assert_allclose(table[3, 6, 7], np.cos(1.5 / 100), atol=1e-6)


def test_positions_are_the_middle_of_the_table():
    inputs = _inputs(4, 12)
    params, apply = _params(TINY, inputs), jax.jit(TINY.apply)
    before = apply(params, *inputs)
    table = np.array(params["params"]["positions"]).reshape(8, 8, -1)
    outside = np.ones((8, 8), bool)
    outside[3:5, 1:7] = False  # 2 x 6 patches

    def moved(where):
        changed = np.where(where[..., None], table[::-1], table).reshape(1, 64, -1)
        return apply({"params": {**params["params"], "positions": changed}}, *inputs)

    np.testing.assert_array_equal(moved(outside), before)
    assert np.abs(moved(~outside) - before).max() > 1e-3


def test_positions_are_not_trained():
    inputs = _inputs()
    gradient = jax.jit(jax.grad(lambda params: TINY.apply(params, *inputs).sum()))(
        _params(TINY, inputs)
    )["params"]
    assert not np.any(gradient.pop("positions"))
    assert np.any(gradient["patch_in"]["kernel"])


def test_the_order_of_text_tokens_does_not_count():
    x, t, text = inputs = _inputs()
    params, apply = _params(TINY, inputs), jax.jit(TINY.apply)
    turned = text._replace(sequence=text.sequence[:, ::-1])
    np.testing.assert_allclose(apply(params, x, t, turned), apply(params, *inputs), atol=1e-4)
    other = text._replace(sequence=text.sequence + 1)
    assert np.abs(apply(params, x, t, other) - apply(params, *inputs)).max() > 1e-3


def test_bfloat16_is_close():
    inputs = _inputs()
    params = _params(TINY, inputs)
    half = jax.jit(TINY.clone(dtype=jnp.bfloat16).apply)(params, *inputs)
    full = jax.jit(TINY.apply)(params, *inputs)
    assert half.dtype == jnp.float32
    assert np.abs(half - full).max() < 0.1 * np.abs(full).max()


@pytest.mark.parametrize(
    ("size", "message"),
    [((7, 8), "7 x 8 .* patches of 2 x 2"), ((4, 18), "2 x 9 patches.* at most 8 x 8")],
)
def test_sizes_that_do_not_fit_are_named(size, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(TINY.init, jax.random.key(0), *_inputs(*size))
