"""All steps from a tiny package, with the layout of the real one, to pictures and captions."""

import gzip
import struct
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from t2i_jax.data import fashion_mnist
from t2i_jax.data.load import load_source
from tests.download import test_debian

CONFIG = SimpleNamespace(name="fashion_mnist", resolution=32, template="a photo of a {}")
RNG = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (40, 28, 28)).astype(np.uint8),
    "train-labels-idx1-ubyte": RNG.integers(0, 10, 40).astype(np.uint8),
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (12, 28, 28)).astype(np.uint8),
    "t10k-labels-idx1-ubyte": np.array([9, 7, *range(10)], np.uint8),
}


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of a package of 40 training and 12 test pictures. There is no apt.

    10 of the 40 are for validation.
    """
    files = {
        f"./usr/share/datasets/fashion-mnist/{name}.gz": gzip.compress(idx(array))
        for name, array in ARRAYS.items()
    }
    table = test_debian.make_deb(tmp_path, test_debian.packed("xz", files))
    monkeypatch.setattr(fashion_mnist, "PACKAGES", {fashion_mnist.SPEC: table[test_debian.SPEC]})
    monkeypatch.setattr(fashion_mnist, "NUM_VALIDATION", 10)
    monkeypatch.setitem(fashion_mnist.SPLITS, "train", ("train", slice(None, -10)))
    monkeypatch.setitem(fashion_mnist.SPLITS, "validation", ("train", slice(-10, None)))
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", "")
    return tmp_path


def test_from_package_to_pictures(package, capsys):
    fashion_mnist.prepare(CONFIG, str(package))
    assert "licence: MIT" in capsys.readouterr().out
    train, validation, test = (
        load_source(CONFIG, split) for split in ("train", "validation", "test")
    )
    assert [len(s.captions) for s in (train, validation, test)] == [30, 10, 12]
    labels = np.concatenate([train.labels, validation.labels])
    np.testing.assert_array_equal(labels, ARRAYS["train-labels-idx1-ubyte"])
    images = np.concatenate([s.read(np.arange(len(s.captions))) for s in (train, validation)])
    assert images.shape == (40, 32, 32, 3) and images.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(
            images[:, 2:-2, 2:-2, channel], ARRAYS["train-images-idx3-ubyte"]
        )
    frame = np.ones((32, 32), bool)
    frame[2:-2, 2:-2] = False
    assert not images[:, frame].any(), "framed in black"
    assert test.captions[:4] == [
        "a photo of an ankle boot",
        "a photo of a sneaker",
        "a photo of a t-shirt",
        "a photo of a trouser",
    ]
    pairs = list(zip(test.labels, test.captions, strict=True))
    assert [test.classes[label] in caption for label, caption in pairs] == [True] * 12
    assert set(test.variants) == set(fashion_mnist.AUGMENTATIONS)
    assert test.variants["flip"] == test.captions
    np.testing.assert_array_equal(test.read(np.array([5, 0]))[0], test.read(np.arange(12))[5])


def test_28_px_are_as_published_and_each_setting_has_its_fingerprint(package):
    fashion_mnist.prepare(CONFIG, str(package))
    changes = ({}, {"resolution": 28}, {"template": "{}"}, {"negative": True})
    sources = [
        fashion_mnist.make(SimpleNamespace(**vars(CONFIG) | change), "test") for change in changes
    ]
    np.testing.assert_array_equal(
        sources[1].read(np.arange(12))[..., 0], ARRAYS["t10k-images-idx3-ubyte"]
    )
    assert sources[2].captions[:2] == ["ankle boot", "sneaker"]
    marks = {s.fingerprint for s in (*sources, fashion_mnist.make(CONFIG, "train"))}
    np.testing.assert_array_equal(
        sources[3].read(np.arange(12)), 255 - sources[0].read(np.arange(12))
    )
    assert len(marks) == 5 and fashion_mnist.make(CONFIG, "test").fingerprint in marks
    without = SimpleNamespace(name="fashion_mnist", resolution=32)
    assert fashion_mnist.make(without, "test").fingerprint == sources[0].fingerprint, (
        "the default template"
    )


def test_without_preparation_it_tells_what_to_do_and_leaves_nothing(package, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"apt-get was not found.*some-things.*--archives="):
        fashion_mnist.make(CONFIG, "train")

    def stop(content):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fashion_mnist, "read_idx", stop)
        fashion_mnist.prepare(CONFIG, str(package))
    assert [path.name for path in (package / "data").iterdir()] == ["downloads"]
    assert len(fashion_mnist.make(CONFIG, "train").captions) == 30, (
        "the package is there now, so it prepares itself"
    )


@pytest.mark.parametrize(
    ("change", "split", "message"),
    [
        ({}, "val", "fashion_mnist has no split 'val': it has train, validation, test"),
        ({"resolution": 64}, "train", "fashion_mnist has no resolution 64: it has 28, and 32"),
        ({"template": "clothes"}, "train", "'clothes' has no {} for the name of the class"),
    ],
)
def test_unknown_values_are_named_with_the_known_ones(package, change, split, message):
    with pytest.raises(ValueError, match=message):
        fashion_mnist.make(SimpleNamespace(**vars(CONFIG) | change), split)


def test_idx():
    for array in ARRAYS.values():
        np.testing.assert_array_equal(fashion_mnist.read_idx(idx(array)), array)
    for content in (
        b"",
        b"\0\0\x08",
        b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0",
        idx(ARRAYS["t10k-labels-idx1-ubyte"])[:-1],
    ):
        with pytest.raises(ValueError, match="not an IDX file"):
            fashion_mnist.read_idx(content)


def test_importing_needs_no_tensorflow():
    code = (
        "import sys; from t2i_jax.data import fashion_mnist; "
        "print([m for m in sys.modules if 'tensorflow' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
