"""Arrays in files: an index may only name files that lie beside it; what is written is read."""

import json
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from t2i_jax.weights.stored import open_file, open_folder, write_file

INDEX = "model.safetensors.index.json"


def write(folder, file, array):
    folder.mkdir(exist_ok=True)
    save_file({"x": array}, folder / "part.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"x": file}}))


def test_parts_are_read(tmp_path):
    write(tmp_path / "model", "part.safetensors", np.arange(3.0))
    np.testing.assert_array_equal(open_folder(tmp_path / "model", "model")["x"], np.arange(3.0))


@pytest.mark.parametrize("file", ["../part.safetensors", "sub/part.safetensors", "/etc/passwd"])
def test_a_file_elsewhere_is_refused(file, tmp_path):
    save_file({"x": np.ones(3)}, tmp_path / "part.safetensors")
    write(tmp_path / "model", file, np.zeros(3))
    with pytest.raises(ValueError, match=r"index\.json names .*, which does not lie beside it"):
        open_folder(tmp_path / "model", "model")


def test_the_library_reads_what_is_written(tmp_path):
    """Of every type, in any order of the memory, also without axes or numbers."""
    x = np.arange(-12.0, 12.0).reshape(2, 3, 4)
    names = ("bool", "int8", "uint16", "int32", "uint64", "float16", "float32", "float64")
    arrays = {name: x.astype(name).transpose(2, 0, 1) for name in names}
    arrays |= {"scalar": np.float32(3.5), "none": np.zeros((0, 2), np.int64), "é/y": x[::2, ::-1]}
    half = x.astype(ml_dtypes.bfloat16).T
    path = tmp_path / "x.safetensors"
    write_file(path, {**arrays, "bfloat16": half}, {"format": "pt"})
    found = open_file(path)
    assert found.metadata == {"format": "pt"} and set(found) == {*arrays, "bfloat16"}
    for name, array in {**arrays, "bfloat16": half}.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)
    write_file(path, arrays)
    for name, array in load_file(path).items():
        np.testing.assert_array_equal(array, arrays[name])
    with pytest.raises(ValueError, match="z is of complex64, which no safetensors file can hold"):
        write_file(tmp_path / "z.safetensors", {"z": np.zeros(2, np.complex64)})
    assert not (tmp_path / "z.safetensors").exists()


def test_one_array_at_a_time_is_brought_into_order(tmp_path):
    arrays = {str(i): np.ones((500, 500), np.float32).T for i in range(20)}
    tracemalloc.start()
    write_file(tmp_path / "x.safetensors", arrays)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert arrays["0"].nbytes <= peak < 2 * arrays["0"].nbytes
