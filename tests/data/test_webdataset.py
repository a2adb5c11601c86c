"""Tar shards: every caption, pixel and count is checked, and every damage is named."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from t2i_jax.data import loader, picture_reader, shards, webdataset
from tests.data.write_shards import encoded, everything, numbered, write_tar

pytestmark = pytest.mark.usefixtures("data_dir")


def config(top, **more):
    return SimpleNamespace(path=str(top), resolution=8, **more)


def two_shards(top):
    write_tar(top / "00000.tar", numbered(range(20)))
    write_tar(top / "00001.tar", numbered(range(20, 40)))


@pytest.mark.parametrize("form", ["png", "webp"])
def test_captions_belong_to_their_pictures(top, form):
    write_tar(top / "00000.tar", numbered(range(20), form))
    write_tar(top / "more" / "00001.tar", numbered(range(20, 40), form))
    found = everything(webdataset.make, config(top))
    assert set(found) == {f"number {i}" for i in range(40)}
    assert all(abs(value - int(text.split()[1])) <= 1 for text, value in found.items())


def test_captions_are_a_sequence_on_disk(top):
    members = {"a.png": encoded(1), "a.txt": "Kätzchen 🐈 ", "b.png": encoded(2), "b.txt": ""}
    for split in ("train", "validation", "test"):
        write_tar(top / split / "0.tar", members)
    source = webdataset.make(config(top), "train")
    said = source.captions
    assert not isinstance(said, list) and len(said) == 2
    assert list(said) == ["Kätzchen 🐈", ""] == [said[-2], said[np.int64(1)]] == said[:]
    assert said[1:] == [""] and said[::-1] == ["", "Kätzchen 🐈"]
    with pytest.raises(IndexError):
        said[2]
    empty = "1 of 2 captions in train are empty: these examples are unconditional"
    assert source.notes == [empty]


def test_all_captions_may_be_empty(top):
    write_tar(
        top / "0.tar", {f"{i}.png": encoded(i) for i in range(4)} | {"0.txt": "", "1.txt": ""}
    )
    source = webdataset.make(config(top, max_skipped=0.5), "train")
    assert list(source.captions) == ["", ""]


@pytest.mark.parametrize(
    ("text", "caption", "reason"),
    [
        ('{"caption": " a cat "}', "a cat", ""),
        ('{"caption": null}', "", ""),
        ('{"text": "a cat"}', None, '3.json has no "caption"'),
        ('{"caption": 3}', None, '3.json: "caption" needs to be text, got 3'),
        ("{", None, "3.json is not JSON"),
        (b"\xff", None, "3.json is not UTF-8"),
    ],
)
def test_a_caption_in_json(top, text, caption, reason):
    two_shards(top)
    write_tar(top / "2.tar", {"3.png": encoded(77), "3.json": text})
    found = everything(webdataset.make, config(top))
    assert len(found) == 40 + (caption is not None)
    if caption is not None:
        assert found[caption] == 77
    else:
        notes = webdataset.make(config(top), "train").notes
        assert notes[0].startswith("1 pictures skipped") and f"2.tar/3.png: {reason}" in notes[1]


def test_unusable_pictures_are_skipped_counted_and_listed(top, data_dir):
    two_shards(top)
    bad = {"x.jpg": b"no picture", "x.txt": "a", "y.png": encoded(3)[:-30], "y.txt": "b"}
    write_tar(top / "2.tar", {**bad, "z.png": encoded(9), "w.txt": "no picture of its own"})
    source = webdataset.make(config(top), "train")
    first, *listed = source.notes[:4]
    assert first.startswith("3 pictures skipped, listed in ")
    assert "2.tar/x.jpg: not a readable picture: its format is none of" in listed[0]
    assert "2.tar/y.png: not a readable picture" in listed[1]
    assert listed[2] == "  2.tar/z.png: no caption"
    (path,) = data_dir.rglob("skipped.txt")
    assert path.read_text().splitlines() == [line.strip() for line in listed]
    assert len(everything(webdataset.make, config(top))) == 40
    with pytest.raises(ValueError, match=r"^3 of 43 pictures in .* max_skipped=0\.05 allows"):
        webdataset.make(config(top, max_skipped=0.05), "train")


@pytest.mark.parametrize("left", [0.4, 0.6, 0.8])
def test_a_shard_cut_short_is_an_error_that_names_shard_and_member(top, left):
    two_shards(top)
    path = top / "00001.tar"
    os.truncate(path, int(os.path.getsize(path) * left) // 512 * 512 + 100)
    with pytest.raises(ValueError, match=r"00001\.tar is cut short or damaged at or after 0000"):
        webdataset.make(config(top), "train")


def test_a_shard_cut_between_two_members_is_an_error_too(top):
    write_tar(top / "0.tar", numbered(range(20)))
    # A header and a block for each json and txt; the 20 pictures are of one block too.
    os.truncate(top / "0.tar", 30 * 1024)
    with pytest.raises(ValueError, match=r"0\.tar is cut short .* after 000000009\.txt"):
        webdataset.make(config(top), "train")


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b" + b"x" * 2000, b"x" * 4096])
def test_what_is_no_tar_file_is_an_error(top, content):
    (top / "0.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"0\.tar is cut short or damaged at or after the first"):
        webdataset.make(config(top), "train")


def test_split_folders_are_the_splits(top):
    for number, split in enumerate(("train", "validation", "test")):
        write_tar(top / split / "0.tar", numbered(range(10 * number, 10 * number + 10)))
    for number, split in enumerate(("train", "validation", "test")):
        found = webdataset.make(config(top), split)
        assert list(found.captions) == [f"number {10 * number + i}" for i in range(10)]
    write_tar(top / "1.tar", numbered(range(3)))
    with pytest.raises(ValueError, match=r"1\.tar is outside of train/, validation/, test/"):
        webdataset.make(config(top), "train")


def test_splits_are_disjoint_and_of_the_right_size(top):
    members = {}
    for i in range(400):
        members |= {f"{i}.png": encoded(1), f"{i}.txt": str(i)}
    write_tar(top / "0.tar", members)
    sizes = {s: len(webdataset.make(config(top), s).captions) for s in shards.SPLITS}
    assert sum(sizes.values()) == 400 and sizes["train"] > 330
    assert 8 <= sizes["validation"] <= 35 and 8 <= sizes["test"] <= 35
    assert len(everything(webdataset.make, config(top))) == 400


def test_the_index_is_written_again_only_when_a_shard_has_changed(top, data_dir, monkeypatch):
    two_shards(top)
    before = webdataset.make(config(top), "train")
    scan = shards._write_index
    monkeypatch.setattr(shards, "_write_index", None)
    again = webdataset.make(config(top), "train")
    assert again.fingerprint == before.fingerprint
    monkeypatch.setattr(shards, "_write_index", scan)
    write_tar(top / "00001.tar", numbered(range(20, 41)))
    after = webdataset.make(config(top), "train")
    assert after.fingerprint != before.fingerprint
    assert "number 40" in everything(webdataset.make, config(top))
    assert len(list(data_dir.rglob("rows.npy"))) == 1


def test_an_interrupted_scan_leaves_no_index(top, data_dir, monkeypatch):
    two_shards(top)

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards.np, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            webdataset.make(config(top), "train")
    assert not [path for path in data_dir.rglob("*") if path.is_file()]
    assert len(everything(webdataset.make, config(top))) == 40


def test_a_shard_that_changes_later_is_named(top, monkeypatch):
    two_shards(top)
    monkeypatch.setattr(picture_reader, "CACHE_BYTES", 0)
    source = webdataset.make(config(top), "train")
    write_tar(top / "00001.tar", numbered(range(60, 80)))
    with pytest.raises(ValueError, match=r"00001\.tar cannot be read any more: it is not the pict"):
        source.read(np.arange(len(source.captions)))


def test_batches_start_anywhere_and_for_any_rows(top):
    two_shards(top)
    source = webdataset.make(config(top), "train")
    whole = list(loader.batches(source, {}, 4, 1, 0, 12, reader="threads"))
    rows = np.array([1, 3])
    for batch, want in zip(
        loader.batches(source, {}, 4, 1, 5, 12, rows, "threads"), whole[5:], strict=True
    ):
        np.testing.assert_array_equal(batch["image"], want["image"][rows])
        said = [int(source.captions[i].split()[1]) for i in batch["index"]]
        assert batch["image"][:, 0, 0, 0].tolist() == said


def test_a_folder_without_shards_or_pictures_is_an_error(top, tmp_path):
    with pytest.raises(ValueError, match=r"webdataset needs a path"):
        webdataset.make(SimpleNamespace(path="", resolution=8), "train")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        webdataset.make(config(tmp_path / "nowhere"), "train")
    with pytest.raises(
        ValueError, match=r"has no shards: webdataset reads files that end in \.tar"
    ):
        webdataset.make(config(top), "train")
    write_tar(top / "0.tar", {"a.txt": "a"})
    with pytest.raises(ValueError, match="have no pictures"):
        webdataset.make(config(top), "train")
    write_tar(top / "0.tar", numbered(range(2)))
    with pytest.raises(ValueError, match="no examples in split 'validation': it has train"):
        webdataset.make(config(top), "validation")
