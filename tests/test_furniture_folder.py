"""The folder of furniture (scripts/), from a package that is made here."""

import io
import zipfile

from scripts import furniture_folder

CATALOGUE = """
name#1=Frame H\u00f4i An
category#1=Decor
tags#1=picture, decor ,Blend Swap
icon#1=/a.png
name#2=The same table
icon#2=/b.png
name#3=Caf\\u00e9 table
icon#3=/c.png
"""
PICTURES = {"a.png": b"one", "b.png": b"two", "c.png": b"two"}


def package(path):
    """Yield the files of a package with one library of furniture."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as library:
        library.writestr(furniture_folder.CATALOGUE, CATALOGUE.encode("latin-1"))
        for name, picture in PICTURES.items():
            library.writestr(name, picture)
    yield "usr/share/doc/copyright", b"nothing"
    yield "usr/share/furniture.sh3f", file.getvalue()


def test_each_picture_is_written_once_with_its_caption(tmp_path, monkeypatch):
    monkeypatch.setattr(furniture_folder.debian, "fetch", lambda *_: None)
    monkeypatch.setattr(furniture_folder.debian, "files", package)
    monkeypatch.setattr(furniture_folder, "HELD_OUT", 1)
    monkeypatch.setattr("sys.argv", ["furniture_folder.py", f"--out={tmp_path}"])
    furniture_folder.main()
    found = {}
    for split in ("test", "train"):
        (picture,) = (tmp_path / split).glob("*.png")
        found[picture.read_bytes()] = picture.with_suffix(".txt").read_text("utf-8")
    assert found == {b"one": "frame h\u00f4i an, decor, picture", b"two": "caf\u00e9 table"}
