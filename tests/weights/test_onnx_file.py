"""Arrays of ONNX files: read from bytes that are written here by hand."""

import numpy as np
import pytest

from t2i_jax.weights import onnx_file

KINDS = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float64": 11}


def varint(number):
    low, high = number & 127, number >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def field(number, value):
    """One field of a message: an integer, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name, array, packed=False, raw=True):
    dims = b"".join(map(varint, array.shape))
    shape = field(1, dims) if packed else b"".join(field(1, side) for side in array.shape)
    kind = field(2, KINDS[array.dtype.name])
    return field(
        5, shape + kind + field(8, name.encode()) + field(9 if raw else 4, array.tobytes())
    )


def node(kind, inputs, output, *attributes):
    names = b"".join(field(1, name.encode()) for name in inputs)
    more = b"".join(
        field(5, field(1, name.encode()) + field(3, value)) for name, value in attributes
    )
    return field(1, names + field(2, output.encode()) + field(4, kind.encode()) + more)


def model(*parts):
    return field(1, 8) + field(7, b"".join(parts))


def test_arrays_are_read_and_integers_become_floats():
    rng = np.random.default_rng(0)
    kernel = rng.integers(-128, 128, (300, 2, 3)).astype(np.int8)  # a side of two bytes
    scale = rng.random(300).astype(np.float32)
    zero = rng.integers(-9, 9, 300).astype(np.int8)
    bias, one = np.arange(3, dtype=np.int32) - 1, np.array(0.25, np.float32)
    levels = np.array([[0, 255], [7, 128]], np.uint8)
    found = onnx_file.read(
        model(
            tensor("w", kernel, packed=True),
            tensor("s", scale, raw=False),
            tensor("z", zero),
            tensor("b", bias),
            tensor("one", one),
            tensor("levels", levels),
            tensor("two", np.array([2, 4], np.float32)),
            node("DequantizeLinear", ["w", "s", "z"], "W", ("axis", 0)),
            node("DequantizeLinear", ["b", "one"], "B"),
            node("DequantizeLinear", ["levels", "two"], "L"),  # axis 1 by default
            node("DequantizeLinear", ["x", "one"], "X"),  # x is computed when the graph runs
            node("Relu", ["b"], "R", ("k", 1)),
        ),
        "it",
    )
    assert found.keys() == {"s", "one", "two", "W", "B", "L"}
    expected = (kernel.astype(float) - zero[:, None, None]) * scale[:, None, None]
    np.testing.assert_allclose(found["W"], expected, rtol=1e-6)
    np.testing.assert_array_equal(found["B"], [-0.25, 0, 0.25])
    np.testing.assert_array_equal(found["L"], [[0, 1020], [14, 512]])
    assert all(array.dtype == np.float32 for array in found.values())
    with pytest.raises(ValueError, match="it has no 'Y'"):
        found["Y"]


ONES = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (model(tensor("w", ONES))[:-3], "it ends too early"),
        (model(tensor("w", np.ones(4)))[:], "w is of data type 11"),
        (model(tensor("w", ONES.astype(np.int8), raw=False)), "w is of data type 3, or not stored"),
        (field(1, 8), "it is damaged"),
        (b"\x0b", "it is damaged"),
        (b"", "it is damaged"),
        (
            model(tensor("w", ONES), node("DequantizeLinear", ["w", "w"], "y", ("block_size", 2))),
            "DequantizeLinear with .*block_size",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(content, message):
    message = message.replace("it is damaged", "the file is damaged, or cannot be read here")
    with pytest.raises(ValueError, match=message):
        onnx_file.read(content, "the file")
