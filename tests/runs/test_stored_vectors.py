"""Vectors of pictures in a file belong to the model that wrote them."""

import numpy as np
import pytest

from t2i_jax.runs import stored_vectors
from t2i_jax.runs.stored_vectors import StoredVectors

STORED = StoredVectors(
    np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32), ["a.png", "b.png", "c.png"], "0123abcd"
)


@pytest.fixture
def path(tmp_path):
    stored_vectors.write(tmp_path / "x.npz", STORED)
    return tmp_path / "x.npz"


def test_what_was_written_is_read_and_found(path):
    read = stored_vectors.read(path, "0123abcd")
    np.testing.assert_array_equal(read.vectors, STORED.vectors)
    assert read[1:] == STORED[1:]
    found = stored_vectors.nearest(read, np.array([0.0, 1.0], np.float32), 2)
    assert [name for name, _ in found] == ["c.png", "b.png"]
    np.testing.assert_allclose([cosine for _, cosine in found], [1.0, 0.8], rtol=1e-6)
    assert len(stored_vectors.nearest(read, STORED.vectors[0], 9)) == 3


def test_another_model_is_refused(path):
    with pytest.raises(ValueError, match=r"another model \(weights 0123abcd; this one has ffff"):
        stored_vectors.read(path, "ffff")


def test_damaged_files_are_refused(path, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*: write it by embed_image"):
        stored_vectors.read(tmp_path / "none.npz", "0123abcd")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged, or no file of embed_image"):
        stored_vectors.read(path, "0123abcd")
    np.save(tmp_path / "x.npy", STORED.vectors)
    with pytest.raises(ValueError, match="is damaged, or no file of embed_image"):
        stored_vectors.read(tmp_path / "x.npy", "0123abcd")
    stored_vectors.write(path, STORED._replace(names=["a.png"]))
    with pytest.raises(ValueError, match="3 vectors of 1 pictures"):
        stored_vectors.read(path, "0123abcd")
