"""Weights in 8 and 4 bits: against numbers by hand, bounds of the error, and what stays."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from t2i_jax.weights.quantized import (
    GROUP,
    pack,
    quantize,
    quantize_tree,
    unpack,
    widen,
    widen_tree,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_int8_by_hand():
    """The scale of a channel is its largest |w| over 127: here 1 and 2."""
    kernel = np.array([[127, 254], [-50.4, 3.1], [0.6, -254]], np.float32)
    stored = quantize(kernel, "int8", is_kernel=True)
    np.testing.assert_array_equal(stored["int8"], [[127, 127], [-50, 2], [1, -127]])
    np.testing.assert_array_equal(stored["scale"], [[1, 2]])
    assert stored["int8"].dtype == np.int8
    np.testing.assert_array_equal(widen(stored, True), [[127, 254], [-50, 4], [1, -254]])
    table = quantize(kernel.T, "int8", is_kernel=False)  # a channel is a row there
    np.testing.assert_array_equal(table["int8"], stored["int8"].T)


def test_int4_by_hand():
    """Two groups of 32 inputs with the scales 1 and 0.5, and 16 bytes each."""
    kernel = np.zeros((64, 1), np.float32)
    kernel[:3, 0], kernel[32:34, 0] = [7, -3.4, 1], [-3.5, 1.2]
    stored = quantize(kernel, "int4", is_kernel=True)
    assert stored["int4"].shape == (32, 1) and stored["int4"].dtype == np.uint8
    assert stored["scale"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(stored["scale"].astype(np.float32), [[1], [0.5]])
    assert stored["int4"][0, 0] == 7 | (13 << 4)  # 13 is -3 in four bits
    wide = widen(stored, True)[:, 0]
    np.testing.assert_array_equal(wide[[0, 1, 2, 3, 32, 33]], [7, -3, 1, 0, -3.5, 1])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_whole_number_is_unpacked(axis):
    numbers = np.resize(np.arange(-8, 8, dtype=np.int8), (4, 6, 8))
    assert pack(numbers, axis).size == numbers.size // 2
    np.testing.assert_array_equal(unpack(pack(numbers, axis), axis), numbers)


@pytest.mark.parametrize(
    ("shape", "is_kernel"), [((64, 96), True), ((3, 3, 32, 24), True), ((50, 64), False)]
)
def test_no_number_is_off_by_more_than_half_a_step(shape, is_kernel):
    x = normal(*shape) * np.exp(normal(shape[-1]))  # channels of different sizes
    eight, four = (quantize(x, kind, is_kernel) for kind in ("int8", "int4"))
    error = np.abs(widen(eight, is_kernel) - x)
    assert (error <= eight["scale"] * 0.5001).all() and error.max() > 0
    axis = x.ndim - 2 if is_kernel else x.ndim - 1
    step = np.repeat(four["scale"].astype(np.float32), GROUP, axis)
    # A scale of bfloat16 may be 1/256 too small for the largest number, 7 steps away.
    assert (np.abs(widen(four, is_kernel) - x) <= step * (0.5 + 7 / 256)).all()


def test_what_is_quantised_is_quantised_to_itself():
    x = normal(64, 64)
    wide = widen(quantize(x, "int8", True), True)
    np.testing.assert_allclose(widen(quantize(wide, "int8", True), True), wide, rtol=1e-6)


def test_inputs_that_make_no_groups_get_eight_bits():
    stored = quantize(normal(9, 512), "int4", is_kernel=True)
    assert stored.keys() == {"int8", "scale"}
    assert quantize(normal(48, 512), "int4", is_kernel=True)["scale"].shape == (3, 512)


def test_a_channel_of_zeros_stays_zero():
    for kind in ("int8", "int4"):
        np.testing.assert_array_equal(widen(quantize(np.zeros((64, 64)), kind, True), True), 0)


def test_which_arrays_of_a_tree_are_quantised():
    large, table = normal(64, 128), normal(300, 32)
    tree = {
        "block": {"kernel": jnp.asarray(large), "bias": normal(5000), "scale": normal(128)},
        "conv": {"kernel": normal(3, 3, 4, 4)},
        "text": {"embedding": table},
        "quantizer": {"codebook": table},
        "tokens": {"kernel": np.zeros((64, 128), np.int32)},
        "nothing": {},
    }
    for kind in ("int8", "int4"):
        stored = quantize_tree(tree, kind)
        again = widen_tree(stored)
        assert stored["block"]["kernel"].keys() == {kind, "scale"}
        assert jax.tree.structure(again) == jax.tree.structure(tree) and again["nothing"] == {}
        changed = jax.tree.map(lambda x, y: not np.array_equal(x, y), again, tree)
        assert changed == {
            "block": {"kernel": True, "bias": False, "scale": False},
            "conv": {"kernel": False},
            "text": {"embedding": True},
            "quantizer": {"codebook": False},
            "tokens": {"kernel": False},
            "nothing": {},
        }
        assert again["text"]["embedding"].dtype == np.float32


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="no weights in 'int3': there are int8 and int4"):
        quantize_tree({}, "int3")
