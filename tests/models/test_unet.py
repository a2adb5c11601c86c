"""U-Net: exact sizes, and what may and may not influence an output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models import unet
from t2i_jax.models.unet import VARIANTS, UNet

TINY = dict(width=8, multipliers=(1, 2), blocks=1, attention=(1,), heads=2, patch=2)


def _inputs(batch=3, side=8, length=5, width=6, seed=0):
    r = np.random.default_rng(seed)
    sequence, pooled, x = (
        jnp.asarray(r.normal(size=shape), jnp.float32)
        for shape in ((batch, length, width), (batch, width), (batch, side, side, 3))
    )
    # The third caption has no token at all.
    mask = jnp.asarray(np.arange(length) < np.array([3, 5, 0])[:batch, None])
    return x, jnp.linspace(0.1, 0.9, batch), TextCondition(sequence, pooled, mask)


def _random(net, *inputs):
    """Random parameters in place of the initial zeros, so that everything has an influence."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    r = np.random.default_rng(0)
    return {
        "params": jax.tree.map(
            lambda a: jnp.asarray(r.normal(size=a.shape) * 0.3, jnp.float32), shapes
        )
    }


def _count(params):
    return sum(int(np.prod(a.shape)) for a in jax.tree.leaves(params))


def _formula(
    width, multipliers, blocks, attention, heads, patch=1, channels=3, words=64, pooled=32
):
    def dense(a, b, kernel=1):
        return a * b * kernel + b

    def res(a, b):
        return (
            2 * a
            + dense(a, b, 9)
            + dense(4 * width, 2 * b)
            + 2 * b
            + dense(b, b, 9)
            + (a != b) * dense(a, b)
        )

    def transformer(c):
        norms = 2 * 2 * (c // heads)
        return 6 * dense(c, c) + 2 * dense(words, c) + norms + dense(c, 4 * c) + dense(4 * c, c)

    sizes = [width * m for m in multipliers]
    total = dense(width, 4 * width) + dense(4 * width, 4 * width) + dense(pooled, 4 * width)
    total += (
        dense(patch**2 * channels, sizes[0], 9)
        + 2 * sizes[0]
        + dense(sizes[0], patch**2 * channels, 9)
    )
    before = sizes[0]
    for level, size in enumerate(sizes):
        has = level in attention
        total += (
            res(before, size) + (blocks - 1) * res(size, size) + has * blocks * transformer(size)
        )  # down
        total += blocks * res(2 * size, size) + has * blocks * transformer(size)  # up, with skips
        if level:
            # down to this level and back up
            total += dense(4 * before, before) + dense(size, 4 * before)
        before = size
    return total + 2 * res(before, before) + transformer(before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_count(variant):
    shape = jax.ShapeDtypeStruct
    text = TextCondition(
        shape((1, 7, 64), jnp.float32), shape((1, 32), jnp.float32), shape((1, 7), bool)
    )
    x, t = shape((1, 16, 16, 3), jnp.float32), shape((1,), jnp.float32)
    params = jax.eval_shape(UNet(**VARIANTS[variant], patch=2).init, jax.random.key(0), x, t, text)[
        "params"
    ]
    assert _count(params) == _formula(**VARIANTS[variant], patch=2)


def test_what_has_an_influence():
    net = UNet(**TINY)
    x, t, text = _inputs()
    params = _random(net, x, t, text)
    apply = jax.jit(net.apply)
    y = apply(params, x, t, text)
    assert y.shape == x.shape and y.dtype == jnp.float32 and jnp.isfinite(y).all()

    hidden = text._replace(sequence=jnp.where(text.mask[..., None], text.sequence, 100.0))
    np.testing.assert_array_equal(apply(params, x, t, hidden), y)  # padding has no influence

    moved = [  # everything else has an influence, on its own example only
        ("word", x, t, text._replace(sequence=text.sequence.at[1, 4].add(1.0))),
        ("mask", x, t, text._replace(mask=text.mask.at[1, 4].set(False))),
        ("pooled", x, t, text._replace(pooled=text.pooled.at[1].add(1.0))),
        ("time", x, t.at[1].add(0.05), text),
        ("pixel", x.at[1, 0, 0, 0].add(1.0), t, text),
    ]
    for name, *inputs in moved:
        difference = jnp.abs(apply(params, *inputs) - y).max((1, 2, 3))
        assert difference[1] > 1e-4 and max(difference[0], difference[2]) < 1e-5, (name, difference)


def test_without_cross_attention_only_the_pooled_text_has_an_influence():
    net = UNet(**{**TINY, "attention": ()}, cross_attention=False)
    x, t, text = _inputs()
    params = _random(net, x, t, text)
    apply = jax.jit(net.apply)
    y = apply(params, x, t, text)
    np.testing.assert_array_equal(
        apply(params, x, t, text._replace(sequence=text.sequence + 1.0)), y
    )
    assert not np.allclose(apply(params, x, t, text._replace(pooled=text.pooled + 1.0)), y)


def test_it_starts_at_zero_and_works_in_bfloat16():
    x, t, text = _inputs()
    half = UNet(**TINY, dtype=jnp.bfloat16, remat="dots")
    apply = jax.jit(half.apply)
    last = jax.jit(lambda key: half.init(key, x, t, text)["params"]["conv_out"])(jax.random.key(0))
    assert all(not a.any() and a.dtype == jnp.float32 for a in last.values())  # it starts at zero
    params = _random(half, x, t, text)
    reference = jax.jit(UNet(**TINY).apply)(params, x, t, text)
    assert jnp.abs(apply(params, x, t, text) - reference).max() < 0.1 * jnp.abs(reference).max()


def test_invalid_input_raises_errors():
    x, t, text = _inputs(side=6)
    with pytest.raises(
        ValueError, match=r"6 x 6 cannot be halved: with patch 2 and 2 levels, .* multiples of 4"
    ):
        jax.eval_shape(UNet(**TINY).init, jax.random.key(0), x, t, text)
    with pytest.raises(ValueError, match=r"'M': there are S, B, L, XL"):
        unet.make({"network": "unet", "variant": "M"})


def test_positions_tell_equal_cells_apart_and_features_are_as_many_as_asked():
    """Of a picture of one colour all cells are equal, but for what the edges add."""
    inputs = _inputs()
    flat = (jnp.ones_like(inputs[0]), *inputs[1:])
    net = UNet(**TINY, features=5)
    params = _random(net, *flat)
    out = net.apply(params, *flat)
    assert out.shape == (*inputs[0].shape[:3], 5)
    placed = UNet(**TINY, features=5, positions=True)
    assert jax.tree.structure(params) == jax.tree.structure(_random(placed, *flat))
    assert np.abs(placed.apply(params, *flat) - out).max() > 1e-3
