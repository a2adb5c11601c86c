"""DiT: exact sizes, and what may and may not influence an output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models import dit
from t2i_jax.models.attention import attend
from t2i_jax.models.dit import VARIANTS, DiT
from t2i_jax.models.fusion import TEXT_MODES
from t2i_jax.models.layers import with_neighbours

TINY = dict(patch=2, width=16, depth=2, heads=2, gate_init=0.5)


def _text(batch=3, length=5, width=6, seed=0, vector=None):
    r = np.random.default_rng(seed)
    sequence, pooled = r.normal(size=(batch, length, width)), r.normal(size=(batch, width))
    # The third caption has no token at all.
    mask = np.arange(length) < np.array([3, 5, 0, 4])[:batch, None]
    if vector:
        vector = jnp.asarray(r.normal(size=(batch, vector)), jnp.float32)
    return TextCondition(
        jnp.asarray(sequence, jnp.float32),
        jnp.asarray(pooled, jnp.float32),
        jnp.asarray(mask),
        vector,
    )


def _images(batch=3, side=4):
    r = np.random.default_rng(1)
    return jnp.asarray(r.normal(size=(batch, side, side, 3)), jnp.float32), jnp.linspace(
        0.1, 0.9, batch
    )


def _random(net, x, t, text, seed=0):
    """Random parameters in place of the initial zeros, so that everything has an influence."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), x, t, text)["params"]
    r = np.random.default_rng(seed)
    return {
        "params": jax.tree.map(
            lambda a: jnp.asarray(r.normal(size=a.shape) * 0.3, jnp.float32), shapes
        )
    }


def _count(params):
    return sum(int(np.prod(a.shape)) for a in jax.tree.leaves(params))


def _formula(p, width, depth, heads, channels, words, pooled, cross=False, vector=None):
    w = width
    attention = 4 * (w * w + w) + 2 * (w // heads)
    mlp = 4 * w * w + 4 * w + 4 * w * w + w
    modulation = lambda parts: (w + 1) * parts * w  # noqa: E731
    block = 2 * attention + mlp + modulation(9) if cross else attention + mlp + modulation(6)
    inputs = (
        (p * p * channels + 1) * w
        + (words + 1) * w
        + (pooled + 1) * w
        + (256 + 1) * w
        + (w + 1) * w
    )
    inputs += (vector + 1) * w if vector else 0
    return inputs + depth * block + modulation(2) + (w + 1) * p * p * channels


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_count(variant):
    fields = VARIANTS[variant]
    shape = jax.ShapeDtypeStruct
    text = TextCondition(
        shape((1, 7, 64), jnp.float32), shape((1, 32), jnp.float32), shape((1, 7), bool)
    )
    x, t = shape((1, 16, 16, 4), jnp.float32), shape((1,), jnp.float32)
    params = jax.eval_shape(DiT(**fields).init, jax.random.key(0), x, t, text)["params"]
    assert _count(params) == _formula(
        fields["patch"], fields["width"], fields["depth"], fields["heads"], 4, 64, 32
    )


def test_sizes_of_the_paper():
    """Table 1 of arXiv 2212.09748, in millions, without text and label inputs: within 1 %."""
    for name, millions in {"S/2": 33, "B/2": 130, "L/2": 458, "XL/2": 675}.items():
        f = VARIANTS[name]
        count = _formula(f["patch"], f["width"], f["depth"], f["heads"], 4, 0, 0)
        assert abs(count / 1e6 - millions) < max(1.0, 0.01 * millions), name


def test_parameter_count_of_the_other_fields():
    x, t = _images()
    for fields, text in (({"text_mode": "cross"}, _text()), ({}, _text(vector=4))):
        params = jax.eval_shape(DiT(**TINY, **fields).init, jax.random.key(0), x, t, text)["params"]
        cross = "text_mode" in fields
        assert _count(params) == _formula(2, 16, 2, 2, 3, 6, 6, cross, None if cross else 4)


@pytest.mark.parametrize("text_mode", TEXT_MODES)
def test_what_has_an_influence(text_mode):
    net = DiT(**TINY, text_mode=text_mode, queries=3)
    (x, t), text = _images(), _text()
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
        assert difference[0] == difference[2] == 0.0, (name, difference)
        if text_mode == "film" and name in ("word", "mask"):  # it reads the caption's vector alone
            assert difference[1] == 0.0, (name, difference)
        else:
            assert difference[1] > 1e-4, (name, difference)
    # Far away too.
    assert jnp.abs(apply(params, x.at[1, 0, 0, 0].add(1.0), t, text) - y)[1, 3, 3].max() > 1e-5


def test_output_patches_are_at_the_places_of_input_patches():
    """Without attention, the output of a patch depends on that patch alone."""
    net = DiT(patch=2, width=16, depth=1, heads=2)  # gates closed: blocks are the identity
    (x, t), text = _images(1, 6), _text(1)
    params, apply = jax.jit(net.init)(jax.random.key(0), x, t, text), jax.jit(net.apply)
    np.testing.assert_array_equal(apply(params, x, t, text), 0.0)  # it starts from zero
    params["params"]["patch_out"]["kernel"] = jax.random.normal(jax.random.key(1), (16, 12))
    changed = apply(params, x.at[0, 2, 5].add(1.0), t, text) != apply(params, x, t, text)
    expected = np.zeros((6, 6), bool)
    expected[2:4, 4:6] = True
    np.testing.assert_array_equal(changed[0].any(-1), expected)


def test_with_overlap_a_patch_depends_on_its_neighbours_and_no_others():
    """Without blocks. Without overlap, an output patch depends on its own patch alone."""
    x, t = _images(1, 10)
    text = _text(1)
    for overlap, reach in ((False, 0), (True, 1)):
        net = DiT(**{**TINY, "depth": 0}, overlap=overlap)
        params = _random(net, x, t, text)
        change = np.abs(
            net.apply(params, x.at[:, 4:6, 4:6].add(1.0), t, text) - net.apply(params, x, t, text)
        )
        touched = change.reshape(5, 2, 5, 2, 3).max((1, 3, 4)) > 1e-6
        expected = np.zeros((5, 5), bool)
        expected[2 - reach : 3 + reach, 2 - reach : 3 + reach] = True
        np.testing.assert_array_equal(touched, expected)
    wider = 8 * 2 * 2 * 3 * 16
    count = [
        _count(jax.eval_shape(DiT(**TINY, overlap=o).init, jax.random.key(0), x, t, text)["params"])
        for o in (0, 1)
    ]
    assert count[1] - count[0] == wider


def test_gates_start_at_gate_init():
    (x, t), text = _images(), _text()
    params = jax.jit(DiT(**{**TINY, "depth": 1, "gate_init": 0.25}).init)(
        jax.random.key(0), x, t, text
    )["params"]
    bias = params["block_0"]["modulation"]["bias"].reshape(6, 16)
    np.testing.assert_array_equal(bias[:4], 0.0)
    np.testing.assert_array_equal(bias[4:], 0.25)
    np.testing.assert_array_equal(params["block_0"]["modulation"]["kernel"], 0.0)


def test_bfloat16_hardly_changes_the_result():
    (x, t), text = _images(), _text()
    net = DiT(**TINY)
    params = _random(net, x, t, text)
    reference = jax.jit(net.apply)(params, x, t, text)
    half = DiT(**TINY, dtype=jnp.bfloat16)
    assert all(
        a.dtype == jnp.float32
        for a in jax.tree.leaves(jax.eval_shape(half.init, jax.random.key(0), x, t, text))
    )
    difference = jnp.abs(jax.jit(half.apply)(params, x, t, text) - reference).max()
    assert 0 < difference < 0.1 * jnp.abs(reference).max()


def test_each_example_has_its_own_dropout():
    net = DiT(**TINY, dropout=0.5)
    (x, t), text = _images(), _text()
    params, keys = _random(net, x, t, text), jax.random.split(jax.random.key(0), 3)
    apply = jax.jit(net.apply)
    y = apply(params, x, t, text, keys)
    assert not np.allclose(y, apply(params, x, t, text))
    other = apply(params, x, t, text, keys.at[0].set(keys[1]))
    np.testing.assert_array_equal(other[1:], y[1:])
    assert not np.allclose(other[0], y[0])


def test_attend():
    r = np.random.default_rng(0)
    q, k, v = (jnp.asarray(r.normal(size=(2, n, 3, 4)), jnp.float32) for n in (5, 7, 7))
    mask = jnp.asarray(np.arange(7) < np.array([[4], [7]]))
    expected = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None])
    np.testing.assert_allclose(attend(q, k, v, mask), expected, atol=1e-6)
    np.testing.assert_allclose(attend(q, k, v), jax.nn.dot_product_attention(q, k, v), atol=1e-6)
    nothing = jnp.zeros((2, 7), bool)
    np.testing.assert_array_equal(attend(q, k, v, nothing), 0.0)
    gradients = jax.jit(jax.grad(lambda *qkv: attend(*qkv, nothing).sum(), argnums=(0, 1, 2)))(
        q, k, v
    )
    assert all(jnp.isfinite(g).all() for g in gradients)
    reference = jax.grad(
        lambda q: jnp.sum(jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None]) ** 2)
    )
    ours = jax.grad(lambda q: jnp.sum(attend(q, k, v, mask) ** 2))
    np.testing.assert_allclose(jax.jit(ours)(q), jax.jit(reference)(q), atol=1e-5)


def test_invalid_fields_raise_errors():
    (x, t), text = _images(), _text()

    def init(**fields):
        jax.eval_shape(DiT(**{**TINY, **fields}).init, jax.random.key(0), x, t, text)

    with pytest.raises(ValueError, match="4 x 4 is not made of patches of 3 x 3"):
        init(patch=3)
    with pytest.raises(ValueError, match="width of 16 is not a multiple of 3 heads"):
        init(heads=3)
    with pytest.raises(ValueError, match="'both'; it is joint, cross, gated, resampler, film"):
        init(text_mode="both")
    with pytest.raises(ValueError, match=r"'M/2': there are S/2"):
        dit.make({"network": "dit", "variant": "M/2"})
    net = dit.make({"network": "dit", "variant": "B/4", "depth": 3})
    assert (net.patch, net.width, net.depth) == (4, 768, 3)


def test_neighbours_lend_channels_and_the_text_keeps_its_own():
    x = np.arange(2 * 8 * 16, dtype=np.float32).reshape(2, 8, 16)  # 2 x 3 cells, and two words
    found = np.asarray(with_neighbours(jnp.asarray(x), (2, 3)))
    cells = x[:, :6].reshape(2, 2, 3, 16)
    expected = cells.copy()
    expected[..., :8] = 0
    expected[:, 1:, :, :2] = cells[:, :-1, :, :2]  # from above
    expected[:, :-1, :, 2:4] = cells[:, 1:, :, 2:4]
    expected[:, :, 1:, 4:6] = cells[:, :, :-1, 4:6]  # from the left
    expected[:, :, :-1, 6:8] = cells[:, :, 1:, 6:8]
    np.testing.assert_array_equal(found[:, :6], expected.reshape(2, 6, 16))
    np.testing.assert_array_equal(found[:, 6:], x[:, 6:])


@pytest.mark.parametrize("features", [0, 5])
def test_the_local_one_has_an_added_layer_and_as_many_numbers_as_asked(features):
    net = DiT(**TINY, local=True, features=features)
    (x, t), text = _images(), _text()
    params = _random(net, x, t, text)
    out = net.apply(params, x, t, text)
    assert out.shape == (*x.shape[:3], features or 3)
    plain = DiT(**TINY, features=features)
    without = {"params": {k: v for k, v in params["params"].items() if k != "skip"}}
    assert _count(params) - _count(without) == (12 + 1) * 16
    assert np.abs(out - plain.apply(without, x, t, text)).max() > 1e-2
