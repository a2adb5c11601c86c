"""Two sets of pictures: halves without partners in training, pairs in the rest, and their order."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.core.source import Source
from t2i_jax.data import inner, loader, unpaired
from t2i_jax.data.load import load_source

NAMES = "abcdefghij"


def sets(config, split):
    """A source of 10 or 7 pictures of `resolution` px, each of its own level: "a, red" is 0."""
    names = {"first": NAMES, "second": NAMES[3:][::-1], "empty": ""}[config.path]
    level = {"first": 0, "second": 100, "empty": 0}[config.path]
    numbers = np.array([level + NAMES.index(name) for name in names], np.uint8)
    side = config.resolution + (2 if config.get("wrong") else 0)

    def read(positions):
        return np.broadcast_to(
            numbers[positions, None, None, None], (len(positions), side, side, 3)
        )

    captions = [f"{name}, {config.path}" for name in names]
    return Source(captions, read, f"{config.path} {split}", notes=[f"note of {config.path}"])


@pytest.fixture(autouse=True)
def known_sets(monkeypatch):
    """The source `folder` is `sets`, with the fields path, resolution and wrong."""
    find = inner.lookup

    def fields(config):
        return {name: find("data", "folder", "fields")(config)["path"] for name in FIELDS}

    monkeypatch.setattr(inner, "lookup", lambda folder, name, what: fields)
    monkeypatch.setattr(inner, "load_source", sets)


FIELDS = ("path", "resolution", "wrong")


def config(match="none", first=None, second=None, resolution=4):
    both = {
        "first": {"name": "folder", "path": "first", **(first or {})},
        "second": {"name": "folder", "path": "second", **(second or {})},
    }
    return ConfigDict({"name": "unpaired", "resolution": resolution, "match": match, **both})


def levels(source):
    return source.read(np.arange(len(source.captions)))[:, 0, 0, 0].astype(int)


def test_all_pictures_without_pairs():
    found = load_source(config(), "train")
    np.testing.assert_array_equal(levels(found), np.arange(10))
    np.testing.assert_array_equal(levels(found.second), 100 + np.arange(3, 10)[::-1])
    assert not found.paired and found.notes == ["note of first", "note of second"]
    assert found.captions[0] == "a, first"


def test_pairs_by_name():
    """In training no picture has its partner in the other set; else picture i has partner i."""
    test = load_source(config("name"), "test")
    assert test.paired
    np.testing.assert_array_equal(levels(test), np.arange(3, 10))
    np.testing.assert_array_equal(levels(test.second), 100 + np.arange(3, 10))
    train = load_source(config("name"), "train")
    assert not train.paired
    first, second = set(levels(train)), {x - 100 for x in levels(train.second)}
    assert not first & second and first | second == set(range(3, 10))
    assert train.fingerprint not in (test.fingerprint, load_source(config(), "train").fingerprint)


def test_pairs_by_position():
    test = load_source(config("position"), "test")
    np.testing.assert_array_equal(levels(test), np.arange(7))
    np.testing.assert_array_equal(levels(test.second), 109 - np.arange(7))


def stream(first, last, seed=0):
    """(levels of image, of image_b) of the batches of these steps, of 4 pictures each."""
    source = load_source(config(), "train")
    found = list(loader.batches(source, {}, 4, seed, first, last, reader="threads"))
    return [
        np.concatenate([batch[name][:, 0, 0, 0].astype(int) for batch in found])
        for name in ("image", "image_b")
    ]


def test_each_set_has_epochs_of_its_own():
    image, image_b = stream(0, 35)  # 140 pictures: 14 epochs of the first, 20 of the second
    assert (np.sort(image.reshape(14, 10)) == np.arange(10)).all()
    assert (np.sort(image_b.reshape(20, 7)) == 103 + np.arange(7)).all()
    assert (stream(0, 35, seed=1)[1] != image_b).any()
    orders = [loader.epoch_order(0, 0, 5000, stream) for stream in (0, 1)]
    assert abs(np.corrcoef(*orders)[0, 1]) < 0.05
    before = np.random.default_rng((0, 0)).permutation(5000)  # runs of earlier versions go on
    np.testing.assert_array_equal(orders[0], before)


def test_starting_anywhere_gives_the_same_batches():
    whole = stream(0, 9)
    jax.tree.map(np.testing.assert_array_equal, [x[4 * 5 :] for x in whole], stream(5, 9))


def test_a_batch_of_pairs_for_validation():
    source = load_source(config("name"), "validation")
    batch = loader.make_batch(source, {}, np.array([6, 0]))
    np.testing.assert_array_equal(batch["image_b"][:, 0, 0, 0] - 100, batch["image"][:, 0, 0, 0])
    longer = loader.make_batch(load_source(config(), "train"), {}, np.array([1, 8]))
    assert longer["image_b"][:, 0, 0, 0].tolist() == [108, 108]  # 8 is 1 of the second's seven


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"second": {"path": "empty"}}, r"data\.second has no pictures in train: at least one"),
        ({"first": {"path": "empty"}}, r"data\.first has no pictures"),
        ({"second": {"resolution": 8}}, r"second has pictures of 8 px.*resolution is 4: both"),
        ({"second": {"wrong": True}}, r"second gives pictures of shape \(6, 6, 3\).* is 4"),
        ({"first": {"name": ""}}, r'data\.first names no source: set it as \{"name": "folder"'),
        ({"first": {"paht": "x"}}, r"first has no field 'paht': folder has path, resolution"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(ValueError, match=message):
        load_source(config(**changes), "train")


def test_each_set_has_half_of_the_pairs_in_training():
    found = load_source(config("name", second={"path": "first"}), "train")
    assert len(found.captions) == len(found.second.captions) == 5


def test_a_name_that_is_there_several_times_is_one_pair(monkeypatch):
    """Neither of two pictures of one name is the partner of a picture in the other half."""
    with monkeypatch.context() as patch:
        patch.setattr(unpaired, "MATCHES", {"name": lambda source: list("aabbccddee")})
        both = config("name", second={"path": "first"})
        train, test = load_source(both, "train"), load_source(both, "test")
    np.testing.assert_array_equal(levels(test), [1, 3, 5, 7, 9])
    np.testing.assert_array_equal(levels(test.second), [1, 3, 5, 7, 9])
    np.testing.assert_array_equal(levels(train), [1, 5, 9])
    np.testing.assert_array_equal(levels(train.second), [3, 7])


def test_captions_without_a_comma_are_no_pairs(monkeypatch):
    plain = lambda given, split: sets(given, split)._replace(captions=list(NAMES))  # noqa: E731
    monkeypatch.setattr(inner, "load_source", plain)
    with pytest.raises(ValueError, match=r"match is 'name', and train has 1 pairs.*at least 2"):
        load_source(config("name", second={"path": "first"}), "train")


def test_too_few_pairs(monkeypatch):
    monkeypatch.setattr(unpaired, "MATCHES", {"name": lambda source: source.captions})
    with pytest.raises(ValueError, match=r"match is 'name', and train has 0 pairs.*at least 2"):
        load_source(config("name"), "train")
