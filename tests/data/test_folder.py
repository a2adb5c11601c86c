"""Folders as users have them, with bad files; every count, caption and pixel is checked."""

import json
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from t2i_jax.data import folder, picture_reader
from t2i_jax.data.load import load_source

pytestmark = pytest.mark.usefixtures("data_dir")


def config(top, **more):
    return SimpleNamespace(**{"name": "folder", "path": str(top), "resolution": 8} | more)


def picture(path, colour=(1, 2, 3), caption=None, size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def many(top, n):
    """Write n pictures; picture i has colour (i, 0, 9) and caption "number i"."""
    for i in range(n):
        picture(top / f"{i:03}.png", (i, 0, 9), f"number {i}")


def everything(top, **more):
    """Return {caption: colour of the top left pixel} of all splits."""
    found = {}
    for split in ("train", "validation", "test"):
        s = load_source(config(top, **more), split)
        images = s.read(np.arange(len(s.captions)))
        found |= {
            c: tuple(int(v) for v in image[0, 0])
            for c, image in zip(s.captions, images, strict=True)
        }
    return found


def write_table(top, rows, name="metadata.jsonl"):
    (top / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def test_captions_next_to_pictures_belong_to_the_right_pixels(top):
    many(top, 40)
    assert everything(top) == {f"number {i}": (i, 0, 9) for i in range(40)}


def test_the_user_declares_augmentations(top):
    many(top, 5)
    assert folder.make(config(top), "train").variants == {}
    s = folder.make(config(top, augmentations=("flip", "crop")), "train")
    assert s.variants == {"flip": s.captions, "crop": s.captions}


def test_read_takes_any_positions_and_gives_the_same_again(top):
    many(top, 12)
    s = folder.make(config(top), "train")
    positions = np.array([3, 0, 3])
    first = s.read(positions)
    assert first.shape == (3, 8, 8, 3) and first.dtype == np.uint8
    assert [s.captions[p] for p in positions] == [f"number {c}" for c in first[:, 0, 0, 0]]
    kept = first.copy()
    first[:] = 0  # a caller may change its batch; others do not see it
    np.testing.assert_array_equal(s.read(positions), kept)
    assert s.read(np.zeros(0, int)).shape == (0, 8, 8, 3)


def test_without_a_cache_the_pixels_are_the_same(top, monkeypatch):
    many(top, 8)
    cached = folder.make(config(top), "train")
    monkeypatch.setattr(picture_reader, "CACHE_BYTES", 0)
    direct = folder.make(config(top), "train")
    every = np.arange(len(cached.captions))
    np.testing.assert_array_equal(cached.read(every), direct.read(every))
    assert cached.fingerprint == direct.fingerprint and direct.read(every[:0]).shape == (0, 8, 8, 3)


def test_unicode_in_names_and_captions(top):
    many(top, 3)
    picture(top / "Kätzchen 🐈" / "猫 é.png", (7, 7, 7), "eine Kätzin, 猫, 🐈")
    (top / "bom.txt").write_bytes(b"\xef\xbb\xbfwith a mark\n")
    picture(top / "bom.png", (8, 8, 8))
    found = everything(top)
    assert (
        found["eine Kätzin, 猫, 🐈"] == (7, 7, 7)
        and found["with a mark"] == (8, 8, 8)
        and len(found) == 5
    )


def test_a_table_may_spell_a_name_in_the_other_unicode_form(top):
    for i in range(3):
        picture(top / f"cafe\u0301{i}.png", (i, i, i))
    write_table(top, [{"file_name": f"./caf\u00e9{i}.png", "text": str(i)} for i in range(3)])
    assert everything(top) == {str(i): (i, i, i) for i in range(3)}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("captions.jsonl", ("image", "caption")),
        ("metadata.jsonl", ("file", "text")),
        ("metadata.jsonl", ("file_name", "text")),
    ],
)
def test_jsonl(top, name, keys):
    for i in range(3):
        picture(top / "sub" / f"{i}.png", (i, i, i), "not this one")
    rows = [
        json.dumps(
            dict(zip(keys, (f"sub/{i}.png", f"say {i}\u2028é"), strict=True)), ensure_ascii=False
        )
        for i in range(3)
    ]
    (top / name).write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(rows).encode())
    assert everything(top) == {f"say {i}\u2028é": (i, i, i) for i in range(3)}


def test_csv_with_commas_quotes_and_newlines(top):
    for i in range(3):
        picture(top / f"{i}.png", (i, i, i))
    text = (
        '\ufefffile_name,text,more\r\n0.png,"a ""red"" cat, sitting",x\r\n'
        '1.png,"two\r\nlines",\r\n2.png,é\u2028ü,x\r\n'
    )
    (top / "metadata.csv").write_bytes(text.encode())
    assert everything(top) == {
        'a "red" cat, sitting': (0,) * 3,
        "two\nlines": (1,) * 3,
        "é\u2028ü": (2,) * 3,
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "text": "x"}\n{"file_name": ',
            r"metadata\.jsonl, line 2: not JSON",
        ),
        (
            "metadata.jsonl",
            '\n["a.png"]',
            r"metadata\.jsonl, line 2: needs an object with file_name and text",
        ),
        (
            "metadata.jsonl",
            '{"name": "a.png"}',
            r"line 1: needs file_name or image or file, has name",
        ),
        (
            "captions.jsonl",
            '{"file": "a.png", "label": 3}',
            r"captions\.jsonl, line 1: needs text or caption, has file, label",
        ),
        ("metadata.jsonl", '{"file": "a.png", "text": 0}', "line 1: text needs to be text, got 0"),
        ("metadata.jsonl", '{"file": "a.png", "text": "\\ud800"}', "line 1: text needs to be text"),
        (
            "metadata.csv",
            "file_name,text\na.png,x\nb.png,a, b\n",
            r"metadata\.csv, line 3: needs 2 columns",
        ),
        ("metadata.csv", "file_name,text\na.png\n", r"metadata\.csv, line 2: needs 2 columns"),
        (
            "metadata.csv",
            'file_name,text\na.png,"never closed\n',
            r"metadata\.csv, line 2: not CSV",
        ),
        (
            "metadata.csv",
            b"file_name,text\na.png,x\nb.png,\xff\n",
            r"metadata\.csv, line 3: not UTF-8",
        ),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(top, name, content, message):
    picture(top / "a.png")
    (top / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        folder.make(config(top), "train")


def test_two_captions_files_are_an_error(top):
    picture(top / "a.png")
    write_table(top, [{"file": "a.png", "text": "x"}])
    write_table(top, [{"file": "a.png", "text": "y"}], "captions.jsonl")
    with pytest.raises(ValueError, match=r"has captions\.jsonl and metadata\.jsonl: it needs one"):
        folder.make(config(top), "train")


def test_several_captions_of_one_picture_are_several_examples_in_one_split(top):
    many(top, 3)
    write_table(
        top,
        [{"file": f"{i:03}.png", "text": f"{word} {i}"} for i in range(3) for word in ("b", "a")],
    )
    for split in ("train", "validation", "test"):
        s = folder.make(config(top), split)
        (i,) = {c[-1] for c in s.captions}
        assert (
            s.captions == [f"a {i}", f"b {i}"]
            and (s.read(np.arange(2))[:, 0, 0] == (int(i), 0, 9)).all()
        )


def test_unusable_files_are_skipped_counted_and_listed(top, data_dir):
    many(top, 30)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(top / "cut.jpg")
    (top / "cut.jpg").write_bytes((top / "cut.jpg").read_bytes()[:-1500])
    (top / "words.png").write_text("I am text")
    for name in ("cut", "words"):
        (top / f"{name}.txt").write_text("a caption")
    picture(top / "mute.png")
    picture(top / "latin.png")
    (top / "latin.txt").write_bytes(b"caf\xe9")
    (top / ".hidden.png").write_text("of no interest")
    (top / "array.npy").write_bytes(b"\x93NUMPY")  # not pictures, and never opened
    (top / "object.pkl").write_bytes(b"cos\nsystem\n(S'exit'\ntR.")
    write_table(
        top,
        [
            {"file": "gone.png", "text": "x"},
            {"file": "array.npy", "text": "x"},
            {"file": "../x.png", "text": ""},
        ],
    )
    s = folder.make(config(top, max_skipped=0.2), "train")
    assert len(everything(top, max_skipped=0.2)) == 30
    assert s.notes[0].startswith("7 pictures skipped, listed in ") and len(s.notes) == 8
    (listed,) = data_dir.glob("folder/*/skipped.txt")
    lines = dict(line.split(": ", 1) for line in listed.read_text().splitlines())
    assert str(listed) in s.notes[0] and set(lines) == {
        *("../x.png", "array.npy", "cut.jpg", "gone.png", "latin.png", "mute.png", "words.png")
    }
    assert (
        lines["mute.png"] == "no caption"
        and lines["gone.png"] == "named in a captions file, but not there"
    )
    assert (
        "truncated" in lines["cut.jpg"] and "its format is none of PNG, JPEG" in lines["words.png"]
    )
    assert lines["latin.png"].startswith("latin.txt is not UTF-8")


def test_too_much_skipped_is_an_error_with_the_counts_and_the_list(top, data_dir):
    many(top, 12)
    for i in range(2):
        (top / f"bad{i}.png").write_text("x")
    for _ in range(2):  # from the scan, and again from the index
        with pytest.raises(ValueError) as error:
            folder.make(config(top), "train")
        for part in ("2 of 14 pictures", "max_skipped=0.1", "bad0.png: no caption", "skipped.txt"):
            assert part in str(error.value)
    assert len(next(data_dir.glob("folder/*/skipped.txt")).read_text().splitlines()) == 2
    assert len(folder.make(config(top, max_skipped=0.15), "train").captions) >= 9


def test_empty_captions_are_kept_and_counted(top):
    many(top, 20)
    for i in range(20):
        (top / f"{i:03}.txt").write_text(" \n")
    s = folder.make(config(top), "train")
    count = f"{len(s.captions)} of {len(s.captions)}"
    assert set(s.captions) == {""} and s.notes == [
        f"{count} captions in train are empty: these examples are unconditional"
    ]


def test_split_folders_are_the_splits_each_with_its_captions(top):
    picture(top / "train" / "a.png", (1, 1, 1), "beside")
    picture(top / "test" / "deep" / "b.png", (2, 2, 2))
    write_table(top / "test", [{"file_name": "deep/b.png", "text": "in its table"}])
    assert folder.make(config(top), "train").captions == ["beside"]
    s = folder.make(config(top), "test")
    assert s.captions == ["in its table"] and (s.read(np.array([0])) == 2).all()
    with pytest.raises(
        ValueError, match="has no examples in split 'validation': it has train, test"
    ):
        folder.make(config(top), "validation")
    picture(top / "val" / "c.png", (3, 3, 3), "x")
    assert (
        "  val/c.png: outside of train/, validation/, test/"
        in folder.make(config(top, max_skipped=0.5), "train").notes
    )


def test_a_split_without_a_folder_is_cut_from_train():
    files = [f"train/{i}.png" for i in range(40)] + [f"test/{i}.png" for i in range(3)]
    splits = folder.assign_splits(files)
    assert {file for file, split in splits.items() if split == "test"} == set(files[40:])
    validation = [file for file, split in splits.items() if split == "validation"]
    assert 1 <= len(validation) < 10 and all(file.startswith("train/") for file in validation)
    assert set(folder.assign_splits(files[:40]).values()) == set(folder.SPLITS)


def test_a_split_folder_without_usable_pictures_is_not_filled_from_train(top):
    for i in range(30):
        picture(top / "train" / f"{i}.png", (i, i, i), "beside")
    picture(top / "test" / "b.png", (2, 2, 2))  # no caption
    assert len(folder.make(config(top), "validation").captions) >= 1
    with pytest.raises(
        ValueError, match="has no examples in split 'test': it has train, validation"
    ):
        folder.make(config(top), "test")


def test_splits_by_hash_are_disjoint_fixed_and_of_the_right_size():
    files = [f"{i}.png" for i in range(4000)]
    splits = folder.assign_splits(files)
    assert splits == folder.assign_splits(files[::-1]) and set(splits) == set(files)
    share = {name: sum(s == name for s in splits.values()) / 4000 for name in folder.SPLITS}
    assert abs(share["validation"] - 0.05) < 0.01 and abs(share["test"] - 0.05) < 0.01
    more = folder.assign_splits([*files, "another.png"])
    assert all(
        more[file] == splits[file] for file in files
    )  # a new picture does not move the others
    for n in range(3, 40):
        assert set(folder.assign_splits(files[:n]).values()) == set(folder.SPLITS)
    assert folder.assign_splits(files[:2]) == {"0.png": "train", "1.png": "train"}


def test_the_fingerprint_depends_on_content_not_on_place_or_order(top, tmp_path, monkeypatch):
    many(top, 12)
    many(top / "sub", 3)
    first = folder.make(config(top), "train")
    os.rename(top, tmp_path / "moved")
    walk = os.walk

    def backwards(*args, **kwargs):
        for parent, folders, names in walk(*args, **kwargs):
            folders.reverse()
            yield parent, folders, sorted(names, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    moved = folder.make(config(tmp_path / "moved"), "train")
    assert moved.fingerprint == first.fingerprint and moved.captions == first.captions
    others = [
        folder.make(config(tmp_path / "moved", resolution=9), "train"),
        folder.make(config(tmp_path / "moved"), "test"),
    ]
    (tmp_path / "moved" / f"{int(first.captions[0].split()[1]):03}.txt").write_text(
        "something else"
    )
    others.append(folder.make(config(tmp_path / "moved"), "train"))
    assert len({first.fingerprint, *(o.fingerprint for o in others)}) == 4


def test_a_folder_is_scanned_again_only_when_it_has_changed(top, monkeypatch):
    many(top, 6)
    scans = []
    scan = folder._scan
    monkeypatch.setattr(folder, "_scan", lambda *args: scans.append(1) or scan(*args))
    first = folder.make(config(top), "train")
    again = folder.make(config(top), "train")
    assert (
        len(scans) == 1
        and again.captions == first.captions
        and again.fingerprint == first.fingerprint
    )
    picture(top / "new.png", (9, 9, 9), "new")
    assert "new" in everything(top) and len(scans) == 2


def test_an_interrupted_scan_leaves_no_index(top, data_dir, monkeypatch):
    many(top, 6)

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", stop)
        folder.make(config(top), "train")
    assert not list(data_dir.glob("folder/*/index.jsonl"))
    assert len(everything(top)) == 6


@pytest.mark.parametrize("change", ["gone", "broken", "replaced"])
def test_a_file_that_fails_later_is_named(top, change):
    many(top, 12)
    s = folder.make(config(top), "train")
    victim = top / f"{int(s.captions[2].split()[1]):03}.png"
    if change == "gone":
        victim.unlink()
    elif change == "broken":
        victim.write_text("x")
    else:
        picture(victim, (200, 0, 0))
    with pytest.raises(ValueError, match=victim.name + " cannot be read any more"):
        s.read(np.arange(5))
    assert s.read(np.array([0])).shape == (1, 8, 8, 3)


def test_an_empty_or_missing_folder_is_an_error(top, tmp_path):
    with pytest.raises(ValueError, match="folder needs a path"):
        folder.make(config(""), "train")
    with pytest.raises(FileNotFoundError, match=f"there is no folder {tmp_path / 'nowhere'}"):
        folder.make(config(tmp_path / "nowhere"), "train")
    with pytest.raises(ValueError, match=r"has no pictures: they end in \.bmp"):
        folder.make(config(top), "train")
    picture(top / "a.png")
    with pytest.raises(
        ValueError,
        match=r"has no captions: they can be NAME\.txt beside NAME\.png, or one of captions\.jsonl",
    ):
        folder.make(config(top), "train")


def test_reading_is_quick(top):
    many(top, 60)
    s = folder.make(config(top, resolution=32), "train")
    positions = np.arange(64) % len(s.captions)
    s.read(positions)
    start = time.perf_counter()
    for _ in range(20):
        s.read(positions)
    assert 20 * 64 / (time.perf_counter() - start) > 3_000  # pictures a second, from memory
