"""Frozen arrays on disk: they come back as they were, and a change is noticed."""

import jax
import numpy as np
import pytest

from t2i_jax.runs.frozen import load_frozen, save_frozen, tree_hash


def test_frozen_round_trip_and_tampering(tmp_path):
    tree = {
        "codebook": np.arange(6.0).reshape(2, 3),
        "null": {"tokens": np.array([1, 0]), "mask": np.array([True, False])},
        "base": {"model": {"text": {}, "net": {"bias": np.zeros(2), "scale": np.array(0.5)}}},
    }
    name = save_frozen(tmp_path, tree)
    again = load_frozen(tmp_path, name)
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, again, tree)
    assert jax.tree.map(np.shape, again) == jax.tree.map(np.shape, tree)
    assert name != tree_hash({**tree, "codebook": tree["codebook"] + 1e-9})
    path = tmp_path / "frozen" / f"{name}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="was changed"):
        load_frozen(tmp_path, name)
    with pytest.raises(FileNotFoundError, match="missing"):
        load_frozen(tmp_path, "0" * 16)
