"""Tiny data sets of the three kinds, all steps from TFDS to pictures. No network."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets

from t2i_jax.data import pictures, tfds
from t2i_jax.data.load import load_source
from tests.data import tiny_tfds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(autouse=True)
def load(folder, monkeypatch):
    monkeypatch.setenv("T2I_JAX_DATA", str(folder))

    def load(dataset, split="train", resolution=8, **more):
        return load_source(
            SimpleNamespace(name="tfds", dataset=dataset, resolution=resolution, **more), split
        )

    return load


def check(found, expected):
    """Check that the examples are the centred squares of these pictures."""
    images = found.read(np.arange(len(found.captions)))
    assert len(expected) == len(found.captions) == len(images) and images.dtype == np.uint8
    for image, picture in zip(images, expected, strict=True):
        np.testing.assert_array_equal(image, np.broadcast_to(picture[:, 2:10], (8, 8, 3)))


def test_the_template_turns_a_label_into_a_caption(load):
    train, validation, test = (
        load("tiny_labels", split) for split in ("train", "validation", "test")
    )
    check(train, [tiny_tfds.picture(i, 1) for i in range(38)])
    check(validation, [tiny_tfds.picture(i, 1) for i in (38, 39)])
    check(test, [tiny_tfds.picture(i, 1) for i in range(4)])
    assert train.captions[:3] == ["a photo of an owl", "a photo of a red fox", "a photo of an ant"]
    assert train.classes == ("owl", "red fox", "ant") and train.labels == [i % 3 for i in range(38)]
    assert load("tiny_labels", template="this is {}").captions[1] == "this is red fox"
    assert "flip" not in train.variants and train.variants["noise"] == train.captions, (
        "a mirrored 2 is not a 2"
    )
    np.testing.assert_array_equal(train.read(np.array([7, 7, 1]))[1:], train.read(np.array([7, 1])))


def test_examples_without_a_published_label_are_left_out(load):
    train = load("tiny_kept_back")
    check(train, [tiny_tfds.picture(i, 1) for i in range(1, 38, 2)])
    assert train.labels == [i % 3 for i in range(1, 38, 2)]
    with pytest.raises(ValueError, match="test of the TFDS data set 'tiny_kept_back' has no label"):
        load("tiny_kept_back", "test")


def test_captions_are_as_written(load):
    train, validation, test = (
        load("tiny_captions", split) for split in ("train", "validation", "test")
    )
    numbers = [(i, n) for i in range(38) for n in range(i % 3)]
    check(train, [tiny_tfds.picture(i) for i, _ in numbers])
    assert train.captions == [f"picture {i}, caption {n}" for i, n in numbers]
    assert not len(train.labels)
    assert validation.captions == [f"picture {i}, caption 0" for i in (1, 2, 4, 5)], (
        "the first of each picture that has one"
    )
    check(validation, [tiny_tfds.picture(i) for i in (1, 2, 4, 5)])
    assert test.captions == ["picture 38, caption 0"]
    assert load("tiny_captions").fingerprint == train.fingerprint, "found again next to the records"


def test_the_name_of_the_data_set_is_the_caption_of_pictures_alone(load):
    train, validation, test = (
        load("tiny_pictures/old_barn", split) for split in ("train", "validation", "test")
    )
    assert set(train.captions + test.captions) == {"a photo of an old barn"}
    assert set(load("tiny_pictures/old_barn", template="a place").captions) == {"a place"}
    for found, numbers in ((train, range(36)), (validation, (36, 37)), (test, (38, 39))):
        check(found, [tiny_tfds.picture(i) for i in numbers])
    marks = {
        s.fingerprint
        for s in (
            train,
            validation,
            test,
            load("tiny_pictures/sea"),
            load("tiny_pictures/old_barn", resolution=4),
        )
    }
    assert len(marks) == 5


def test_pictures_are_resized_like_those_of_files(load, tmp_path):
    from PIL import Image

    Image.fromarray(tiny_tfds.picture(3)).save(tmp_path / "3.png")
    found = load("tiny_pictures/old_barn", resolution=5).read(np.array([3]))
    np.testing.assert_array_equal(found[0], pictures.decode(tmp_path / "3.png", 5))


@pytest.mark.parametrize(
    ("existing", "parts"),
    [
        (("train", "test"), ("train[:95%]", "train[95%:]", "test")),
        (("test", "train", "validation"), ("train", "validation", "test")),
        (("restval", "train", "val", "test"), ("train", "val", "test")),
        (("train",), ("train[:90%]", "train[90%:95%]", "train[95%:]")),
    ],
)
def test_held_out_splits(existing, parts):
    assert (
        tuple(tfds.tfds_split(split, list(existing)) for split in ("train", "validation", "test"))
        == parts
    )


def test_unknown_values_are_named(load):
    with pytest.raises(
        ValueError, match=r"TFDS has no data set 'fashion_mnits'; did you mean fashion_mnist"
    ):
        load("fashion_mnits")
    with pytest.raises(ValueError, match="tfds has no split 'val': it has train, validation, test"):
        load("tiny_labels", "val")
    with pytest.raises(ValueError, match="no split 'train' to learn from: it has test"):
        tfds.tfds_split("test", ["test"])
    sound = tensorflow_datasets.features.FeaturesDict(
        {"audio": tensorflow_datasets.features.Audio()}
    )
    with pytest.raises(ValueError, match="'speech' has no picture: it has audio"):
        tfds.find_features(sound, "speech")


def test_without_a_network_the_error_tells_what_to_do(load, monkeypatch, tmp_path, capsys):
    def fail(self):
        raise ConnectionError("no such host")

    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    monkeypatch.setattr(tiny_tfds.TinyLabels, "download_and_prepare", fail)
    with pytest.raises(
        FileNotFoundError,
        match=r"tiny_labels is not prepared.*ConnectionError: no such host.*with a network",
    ):
        load("tiny_labels")
    assert f"TFDS fetches tiny_labels into {tmp_path}" in capsys.readouterr().out


def test_importing_needs_no_tensorflow():
    code = (
        "import sys; from t2i_jax.data import tfds; "
        "print([m for m in sys.modules if 'tensorflow' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
