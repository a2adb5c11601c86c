"""Files of named arrays, and whether they fit."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from t2i_jax.weights import arrays as weights


def test_read(tmp_path):
    file = tmp_path / "a.safetensors"
    save_file({"x": np.arange(3, dtype=np.float16), "y": np.ones((2, 1), np.float32)}, file)
    arrays = weights.read(file)
    assert set(arrays) == {"x", "y"}
    np.testing.assert_array_equal(arrays["x"], [0, 1, 2])
    with pytest.raises(
        ValueError,
        match=r"a.safetensors has no 'z': it is of another network \(it has 2 arrays: x, y, ",
    ):
        arrays["z"]
    with pytest.raises(FileNotFoundError, match=r"no file .*b\.safetensors"):
        weights.read(tmp_path / "b.safetensors")
    (tmp_path / "b.pth").write_bytes(b"not a state dict")
    # Every other suffix is read as torch.save writes it.
    with pytest.raises(ValueError, match=r"b\.pth"):
        weights.read(tmp_path / "b.pth")


def test_bfloat16(tmp_path):
    """Written by hand: 1, -2 and 0.5 are the upper halves of their float32."""
    header = json.dumps({"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    data = np.array([0x3F80, 0xC000, 0x3F00], "<u2").tobytes()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    found = weights.read(tmp_path / "a.safetensors")["x"]
    assert found.dtype.name == "bfloat16"
    np.testing.assert_array_equal(found.astype(np.float32), [1, -2, 0.5])


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "a.safetensors"
    save_file({"x": np.ones(3, np.float32)}, file)
    for content in (b"", b"not it", file.read_bytes()[:-1]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.safetensors is damaged: "):
            weights.read(file)


def test_match_network():
    network = {"a": {"kernel": np.zeros((2, 3))}, "b": np.zeros(4)}
    params = {"a": {"kernel": np.full((2, 3), 7, np.float16)}, "b": np.arange(4)}
    found = weights.match_network(params, network, "FILE")
    assert found["a"]["kernel"].dtype == found["b"].dtype == np.float32
    np.testing.assert_array_equal(found["b"], [0, 1, 2, 3])
    for changed, message in (
        (
            {**params, "b": np.zeros((4, 1))},
            r"of \['b'\] it has one of shape \(4, 1\), the network one of shape \(4,\)",
        ),
        ({"a": params["a"]}, r"of \['b'\] it has none, the network one of shape \(4,\)"),
        ({**params, "c": np.zeros(1)}, r"of \['c'\] it has one of shape \(1,\), the network none"),
    ):
        with pytest.raises(ValueError, match="FILE does not fit: " + message):
            weights.match_network(changed, network, "FILE")
