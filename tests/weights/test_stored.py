"""Arrays in several files: an index may only name files that lie beside it."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from t2i_jax.weights.stored import open_folder

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
