"""The U-Net of Stable Diffusion: published sizes, and what has an influence.

Agreement with the original is tested in parity/.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models.sd_unet import VARIANTS, UNet2DConditionModel, param_shapes

# Norms have several channels in a group: with one, they would remove the time.
TINY = dict(channels=(64, 96), blocks=1, depths=(0, 1), middle_depth=1, heads=(1, 2), text_width=6)
ADDED = dict(added_width=5 + 2 * 4, number_width=4)
COUNTS = {"SD1": 859_520_964, "SDXL": 2_567_463_684}  # the others are in parity/


@pytest.mark.parametrize("variant", COUNTS)
def test_parameter_count(variant):
    shapes = param_shapes(UNet2DConditionModel(**VARIANTS[variant]))
    assert sum(a.size for a in jax.tree.leaves(shapes)) == COUNTS[variant]


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X, T = normal(0, 2, 4, 6, 4), np.array([0.3, 0.8], np.float32)
TEXT = TextCondition(
    normal(1, 2, 3, 6), normal(2, 2, 5), np.ones((2, 3), bool), np.array([[4.0, 7], [3, 512]])
)


@pytest.fixture(scope="module")
def predict():
    """The network with added conditions and random weights, compiled."""
    net = UNet2DConditionModel(**TINY, **ADDED)
    r = np.random.default_rng(3)
    params = jax.tree.map(
        lambda a: (0.3 * r.normal(size=a.shape)).astype(np.float32), param_shapes(net)
    )
    return jax.jit(lambda x, t, text: net.apply({"params": params}, x, t, text))


@pytest.mark.parametrize(
    "change",
    [
        dict(t=np.array([0.3, 0.801], np.float32)),
        dict(sequence=TEXT.sequence * np.array([[[1]], [[2]]], np.float32)),
        dict(pooled=TEXT.pooled * np.array([[1], [2]], np.float32)),
        dict(vector=np.array([[4.0, 7], [512, 3]])),
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_condition_has_an_influence_on_its_own_example(predict, change):
    before = predict(X, T, TEXT)
    assert before.shape == X.shape and before.dtype == jnp.float32
    after = predict(X, change.pop("t", T), TEXT._replace(**change))
    np.testing.assert_allclose(after[0], before[0], rtol=1e-5, atol=1e-5)
    assert np.abs(after[1] - before[1]).max() > 1e-3 * np.abs(before).max()


def test_odd_sides(predict):
    """A side that is not a multiple of the coarsest cell is rounded up on the way down."""
    x = normal(5, 2, 5, 7, 4)
    whole = predict(x, T, TEXT)
    assert whole.shape == x.shape and np.isfinite(whole).all()


def test_padding_is_attended_to(predict):
    hidden = TEXT._replace(mask=np.array([[True, False, False]] * 2))
    np.testing.assert_array_equal(predict(X, T, hidden), predict(X, T, TEXT))


def test_the_dtype_of_the_computation():
    net = UNet2DConditionModel(**TINY, dtype=jnp.bfloat16)
    shapes = param_shapes(net)
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(shapes))
    program = jax.make_jaxpr(lambda p, *inputs: net.apply({"params": p}, *inputs))(
        shapes, X, T, TEXT
    )
    assert "bf16" in str(program) and program.out_avals[0].dtype == jnp.float32


@pytest.mark.parametrize(
    ("fields", "x", "text", "message"),
    [
        ({}, (2, 4, 6, 9), TEXT, r"\(4, 6, 9\) do not fit: this U-Net takes 4 channels"),
        ({}, (2, 4, 6, 4), TEXT._replace(sequence=normal(0, 2, 3, 7)), "tokens of 7 .* takes 6"),
        (ADDED, (2, 4, 6, 4), TEXT._replace(vector=None), "5 channels and 0 numbers .* takes 13"),
    ],
    ids=["channels", "text", "numbers"],
)
def test_what_does_not_fit_is_named(fields, x, text, message):
    net = UNet2DConditionModel(**TINY, **fields)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(x), T, text)
