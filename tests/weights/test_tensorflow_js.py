"""Arrays of TensorFlow.js files: cut out of their bytes in order, and nothing is guessed."""

import json

import numpy as np
import pytest

from t2i_jax.weights import tensorflow_js


def files(content, **changes):
    about = [
        {"name": "a/kernel", "shape": [2, 3], "dtype": "float32", **changes},
        {"name": "a/bias", "shape": [1], "dtype": "float32"},
    ]
    manifest = [{"paths": ["one.bin", "two.bin"], "weights": about}]
    model = json.dumps({"weightsManifest": manifest}).encode()
    return {"model.json": model, "one.bin": content[:10], "two.bin": content[10:]}


def test_arrays_may_go_on_in_the_next_file():
    numbers = np.arange(7, dtype="<f4") / 3
    found = tensorflow_js.read(files(numbers.tobytes()), "it")
    np.testing.assert_array_equal(found["a/kernel"], numbers[:6].reshape(2, 3))
    np.testing.assert_array_equal(found["a/bias"], numbers[6:])


@pytest.mark.parametrize(
    ("changes", "length", "message"),
    [
        ({"dtype": "int32"}, 28, "a/kernel is not stored as float32"),
        ({"quantization": {"scale": 1}}, 28, "a/kernel is not stored as float32"),
        ({}, 24, "it is damaged"),
        ({}, 32, "32 bytes for arrays of 28"),
        ({"shape": None}, 28, "it is damaged"),
    ],
)
def test_what_cannot_be_read_is_refused(changes, length, message):
    with pytest.raises(ValueError, match=message):
        tensorflow_js.read(files(bytes(length), **changes), "it")


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"it has no 'two\.bin'"):
        tensorflow_js.read({k: v for k, v in files(bytes(28)).items() if k != "two.bin"}, "it")
