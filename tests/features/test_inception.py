"""The resize of FID, and messages about missing or other weights. The forward pass: parity/."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from t2i_jax.features import extractor
from t2i_jax.features.inception import make, resize


def test_resize_by_hand():
    """Pixel i of n interpolates at i * size / n, and at the edge not beyond the last pixel."""
    x = np.array([0.0, 10.0, 40.0], np.float32).reshape(1, 1, 3, 1)
    to = jax.jit(resize, static_argnums=1)
    wider = [0, 5, 10, 25, 40, 40]  # places 0, 0.5, 1, 1.5, 2, 2.5
    np.testing.assert_allclose(to(x, 6)[0, :, :, 0], np.tile(wider, (6, 1)), rtol=1e-6)
    np.testing.assert_allclose(
        to(x.swapaxes(1, 2), 6)[0, :, :, 0], np.tile(wider, (6, 1)).T, rtol=1e-6
    )
    narrower = to(np.arange(12.0, dtype=np.float32).reshape(1, 1, 12, 1), 4)[0, 0, :, 0]
    np.testing.assert_allclose(narrower, [0, 3, 6, 9])  # not antialiased: pixels are skipped
    same = np.random.default_rng(0).random((1, 5, 5, 3), np.float32)
    np.testing.assert_array_equal(to(same, 5), same)


def test_missing_weights(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"no file at '.*/x.pth'.* weights-inception-2015-12-05-6726825d.pth .*release",
    ):
        make(str(tmp_path / "x.pth"))
    with pytest.raises(
        FileNotFoundError, match="give its path as the path of the extractor 'inception'"
    ):
        extractor.load("inception")


def test_other_weights(tmp_path):
    def made_of(arrays):
        save_file(arrays, tmp_path / "w.safetensors")
        make(str(tmp_path / "w.safetensors"))

    with pytest.raises(
        ValueError, match=r"w.safetensors has no 'fc.weight': it is of another network"
    ):
        made_of({"x": np.zeros(3, np.float32)})
    with pytest.raises(
        ValueError, match="weights for 1000 classes, and the Inception-v3 of FID has 1008"
    ):
        made_of({"fc.weight": np.zeros((1000, 2048), np.float32)})
    with pytest.raises(
        ValueError,
        match=r"does not fit: of \['Conv2d_1a_3x3'\]\['bias'\] it has none, the network one",
    ):
        made_of({"fc.weight": np.zeros((1008, 2048), np.float32)})
