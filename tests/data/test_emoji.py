"""The rules of selection on a few real entries, and all steps from tiny archives to pictures."""

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from t2i_jax.data import emoji
from t2i_jax.data.load import load_source
from t2i_jax.download import npm

CONFIG = SimpleNamespace(name="emoji", resolution=32)


def entry(code, label, group=3, **more):
    return {"hexcode": code, "label": label, "group": group, **more}


ENTRIES = [
    entry("1F1E6", "regional indicator A", None),
    entry("1F3FB", "light skin tone", 2),
    entry("1F408", "cat"),
    entry("1F408-200D-2B1B", "black cat"),
    entry("1F468", "man", 1),
    entry("1F469", "woman", 1),
    entry("1F9D1", "person", 1),
    entry("1F9D1-200D-1F692", "firefighter", 1),
    entry("1F469-200D-1F692", "woman firefighter", 1),
    entry("1F9D1-200D-1F373", "cook", 1),
    entry("1F575-FE0F", "detective", 1),
    entry("1F575-FE0F-200D-2640-FE0F", "woman detective", 1, gender=0),
    entry("1F6B6", "person walking", 1),
    entry("1F6B6-200D-27A1-FE0F", "person walking: facing right", 1),
    entry("1F48F", "kiss", 1),
    entry("1F468-200D-2764-FE0F-200D-1F48B-200D-1F468", "kiss: man, man", 1),
    entry("2640", "female sign", 8),
    entry("0033-FE0F-20E3", "keycap: 3", 8),
    entry("1F3F4", "black flag", 9),
]
COUNTRIES = [entry(f"1F1E7-1F1{i:02X}", f"flag: Land {i}", 9) for i in range(0xE6, 0x100)]
COUNTRIES += [entry(f"1F1E8-1F1{i:02X}", f"flag: Isle {i}", 9) for i in range(0xE6, 0x100)]
KEPT = [
    "cat",
    "black cat",
    "man",
    "woman",
    "person",
    "firefighter",
    "cook",
    "detective",
    "person walking",
    "kiss",
]
KEPT += ["female sign", "keycap 3", "black flag"]


def test_near_duplicates_are_left_out():
    assert [e.label for e in emoji.select(ENTRIES)] == KEPT


def test_country_flags_are_capped_and_not_all_in_one_split():
    flags = emoji.select(COUNTRIES)
    assert len(flags) == emoji.NUM_FLAGS and flags == emoji.select(COUNTRIES)
    assert flags[0].label.startswith("flag of Isle") or flags[0].label.startswith("flag of Land")
    assert Counter(e.split for e in flags)["train"] > emoji.NUM_FLAGS / 2


def test_a_concept_is_its_base_and_has_one_split():
    assert emoji.concept("1f408-200d-2b1b") == emoji.concept("1F408") == "1F408"
    assert emoji.concept("2764-FE0F-200D-1F525") == emoji.concept("2764")
    people = {emoji.concept(code) for code in ("1F9D1", "1F9D1-200D-1F692", "1F9D1-200D-1F373")}
    assert len(people | {emoji.concept("1F1E6-1F1E9"), emoji.concept("1F1E6-1F1EA")}) == 5
    codes = [f"{0x1F300 + i:X}" for i in range(3000)]
    share = Counter(map(emoji.split_of, codes))
    assert abs(share["validation"] / 3000 - 0.04) < 0.01 and abs(share["test"] / 3000 - 0.04) < 0.01
    # Fixed: a change of these would mix the splits of prepared data and of checkpoints.
    codes = ("1F408", "1FA90", "1F339", "1F3BF")
    expected = ["train", "train", "validation", "validation"]
    assert [emoji.split_of(code) for code in codes] == expected


def colour(code, style):
    """Return the colour of an emoji's fake picture; transparent black is around it."""
    digest = hashlib.sha256(f"{code} {style}".encode()).digest()
    return tuple(digest[:3])


def picture(code, style, side, kind):
    image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    image.paste((*colour(code, style), 255), (side // 4, side // 4, 3 * side // 4, 3 * side // 4))
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


TABLE = [entry(f"{0x1F330 + i:X}", f"object {i}") for i in range(60)] + [entry("2764", "red heart")]


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """A folder of four archives with the layout of the real ones, and the hashes expected."""
    folder = tmp_path / "archives"
    folder.mkdir()
    contents = {spec: {} for spec in emoji.PACKAGES}
    contents[emoji.NAME_TABLE[0]][emoji.NAME_TABLE[1]] = json.dumps(TABLE).encode()
    for style, (_, spec, prefix) in emoji.STYLES.items():
        kind, side = ("WEBP", 128) if style == "fluent" else ("PNG", 64)
        for e in TABLE[1:] if style == "fluent" else TABLE:  # one style lacks the first
            file = e["hexcode"].lower() + ("-fe0f" if e["label"] == "red heart" else "")
            contents[spec][f"{prefix}{file}.{kind.lower()}"] = picture(
                e["hexcode"], style, side, kind
            )
        contents[spec][f"{prefix}1f330-1f3fb.{kind.lower()}"] = b"a skin tone, which is not opened"
    integrity = {}
    for spec, files in contents.items():
        path = folder / npm.file_name(spec)
        with tarfile.open(path, "w:gz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        integrity[spec] = (
            "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        )
    monkeypatch.setattr(emoji, "PACKAGES", integrity)
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", "")  # no npm
    return folder


def test_from_archives_to_batches(archives, capsys, tmp_path):
    emoji.prepare(CONFIG, str(archives))
    printed = capsys.readouterr().out
    attribution = tmp_path / "data" / "emoji" / "32px" / "1.0.0" / "ATTRIBUTION.md"
    assert printed.startswith("emoji at 32 px: ") and printed.count("\n") == 1
    assert str(attribution) in printed
    text = attribution.read_text()
    assert all(
        spec.rpartition("@")[0] + " " + spec.rpartition("@")[2] in text for spec in emoji.PACKAGES
    )

    codes = {e["label"]: e["hexcode"] for e in TABLE}
    styles = {style.words: name for name, style in emoji.STYLES.items()}
    seen, marks = {}, set()
    for split in emoji.SPLITS:
        s = load_source(CONFIG, split)
        images = s.read(np.arange(len(s.captions)))
        assert images.shape == (len(s.captions), 32, 32, 3) and images.dtype == np.uint8
        for caption, image in zip(s.captions, images, strict=True):
            label, words = caption.split(", ")
            np.testing.assert_array_equal(image[16, 16], colour(codes[label], styles[words]))
            assert (image[0] == 255).all()  # what was transparent is white, not black
            assert emoji.split_of(codes[label]) == split
            seen[caption] = split
        marks.add(s.fingerprint)
    assert len(seen) == 3 * len(TABLE) - 1 and "object 0, 3D render" not in seen and len(marks) == 3
    assert s.fingerprint == load_source(CONFIG, "test").fingerprint


def test_some_styles_only(archives):
    emoji.prepare(CONFIG, str(archives))
    every = emoji.make(CONFIG, "train")
    config = SimpleNamespace(**vars(CONFIG), styles=("twemoji", "noto"))
    some = emoji.make(config, "train")
    assert some.captions == [c for c in every.captions if not c.endswith("3D render")]
    kept = np.array([not c.endswith("3D render") for c in every.captions])
    np.testing.assert_array_equal(
        some.read(np.arange(len(some.captions))), every.read(np.arange(len(every.captions)))[kept]
    )
    assert some.fingerprint != every.fingerprint
    assert (
        emoji.make(SimpleNamespace(**vars(CONFIG), styles="noto"), "train").captions[-1]
        == "red heart, soft drawing"
    )


def test_without_preparation_it_prepares_itself_or_tells_how(archives, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python main\.py prepare --data=emoji"):
        emoji.make(CONFIG, "train")
    with pytest.raises(
        FileNotFoundError,
        match=r"npm was not found.*lobehub-fluent-emoji-3d-1\.1\.0\.tgz.*--archives=",
    ):
        emoji.prepare(CONFIG)
    npm.fetch(emoji.PACKAGES, tmp_path / "data" / "downloads", archives)
    assert len(emoji.make(CONFIG, "train").captions) > 100


def test_an_interrupted_preparation_leaves_nothing_that_looks_complete(archives, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(emoji.pictures, "decode", stop)
        emoji.prepare(CONFIG, str(archives))
    assert len(emoji.make(CONFIG, "train").captions) > 100


def test_an_archive_without_pictures_is_an_error(archives, monkeypatch):
    monkeypatch.setitem(
        emoji.STYLES, "noto", emoji.STYLES["noto"]._replace(prefix="package/elsewhere/")
    )
    with pytest.raises(
        ValueError,
        match=r"emoji-datasource-google-16\.0\.0\.tgz has no emoji in package/elsewhere/",
    ):
        emoji.prepare(CONFIG, str(archives))


@pytest.mark.parametrize(
    ("change", "split", "message"),
    [
        ({}, "val", "emoji has no split 'val': it has train, validation, test"),
        (
            {"styles": ("fluent", "apple")},
            "train",
            "emoji has no style 'apple': it has fluent, noto, twemoji",
        ),
        ({"resolution": 48}, "train", "emoji has no resolution 48: it has 32, 64"),
    ],
)
def test_unknown_values_are_named_with_the_known_ones(
    tmp_path, monkeypatch, change, split, message
):
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=message):
        emoji.make(SimpleNamespace(**vars(CONFIG) | change), split)


def test_importing_needs_no_tensorflow():
    code = (
        "import sys; from t2i_jax.data import emoji, folder; "
        "print([m for m in sys.modules if 'tensorflow' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
