"""Arguments that name a file or a folder, and what else can stand there."""

import numpy as np
import pytest

from t2i_jax import pipeline
from t2i_jax.core import files
from tests.bad_input.command import SHAPES, Row, check_row, nothing, run_command, write

# What a path can be, besides what is asked for.
KINDS = ("file", "dangling", "loop", "empty", "nowhere", "file/below", "ü empty")
RUN = "--workdir={place}/run"
PROMPTS = f"sample {RUN} --out={{place}}/new --num=1 --prompts="


@pytest.fixture
def kinds(place):
    """The fixture `place`, with something of each of KINDS, and damaged files of codes."""
    (place / "file").write_text("x")
    (place / "dangling").symlink_to("gone")
    (place / "loop").symlink_to("loop")
    (place / "empty").mkdir()
    (place / "ü empty").mkdir()
    codes = np.load(place / "c.npy")
    for name, array in {
        "float": codes.astype(np.float32),
        "scalar": np.int32(3),
        "short": codes[:, :3],
        "none": codes[:0],
        "text": np.array(["a"]),
        "flat": codes[0],
    }.items():
        np.save(place / f"{name}.npy", array)
    np.save(place / "object.npy", np.array([{}]), allow_pickle=True)
    np.savez(place / "z.npz", codes)
    (place / "cut.npy").write_bytes((place / "c.npy").read_bytes()[:-20])
    return place


def rows(command, words, kinds=KINDS):
    """Return a row for each kind; the last word of `command` ends with the path."""
    return [
        Row(
            f"{command.split()[-1].partition('=')[0]} {kind}, {command.split()[0]}",
            nothing,
            f"{command}'{{place}}/{kind}'",
            f"{kind} {words}",
        )
        for kind in kinds
    ]


CANNOT_BE_FOLDERS = ("file", "dangling", "loop", "file/below")
FILES = tuple(kind for kind in KINDS if kind != "file")
ROWS = [
    *rows("sample --prompt=a --workdir=", "not a run folder no run.json train"),
    *rows(f"train --config={SHAPES} --workdir=", "another folder", CANNOT_BE_FOLDERS),
    *rows(f"sample {RUN} --prompt=a --num=1 --out=", "another folder", CANNOT_BE_FOLDERS),
    *rows(f"reconstruct {RUN} --image={{place}}/drawn/000.png --out=", "another folder", ["file"]),
    *rows(f"decode {RUN} --codes={{place}}/c.npy --out=", "another folder", ["file"]),
    *rows("compare {place}/run --num=4 --out=", "another folder", CANNOT_BE_FOLDERS),
    *rows(PROMPTS, "--prompts no file text", FILES),
    *rows(f"encode {RUN} --out={{place}}/new.npy --image=", "no picture", FILES),
    *rows(f"encode {RUN} --out={{place}}/new.npy --image=", "readable picture PNG", ["file"]),
    *rows(f"decode {RUN} --out={{place}}/new --codes=", "--codes no file encode", FILES),
    *rows(
        f"decode {RUN} --out={{place}}/new --codes=",
        "--codes damaged encode",
        ["file", "z.npz", "object.npy", "cut.npy"],
    ),
    *rows(
        f"decode {RUN} --out={{place}}/new --codes=",
        "--codes: decode",
        ["float.npy", "short.npy", "none.npy", "text.npy", "flat.npy"],
    ),
    *rows(f"encode {RUN} --image={{place}}/drawn/000.png --out=", "--out a folder", ["empty"]),
    Row(
        "--out file/below.npy",
        nothing,
        f"encode {RUN} --image={{place}}/drawn/000.png --out={{place}}/file/below.npy",
        "place/file is a file another",
    ),
    *rows("compare {place}/run ", "run.json FILE.py", ["empty"]),
    *(
        Row(f"{option} is empty", nothing, f"{command} {option}=", f"{option} value is empty", 2)
        for option, command in {
            "--workdir": "sample --prompt=a",
            "--out": f"sample {RUN} --prompt=a",
            "--prompts": f"sample {RUN}",
            "--from": f"sample {RUN}",
            "--checkpoint": f"sample {RUN} --prompt=a",
            "--image": f"encode {RUN}",
            "--codes": f"decode {RUN}",
            "--config": "train --workdir={place}/new",
        }.items()
    ),
    *(
        Row(f"prompts {name}", write("p.txt", content), PROMPTS + "{place}/p.txt", f"p.txt {words}")
        for name, content, words in (
            ("UTF-16", "a cat".encode("utf-16"), "not UTF-8 text"),
            ("UTF-16 without BOM", "a cat".encode("utf-16-le"), "NUL bytes UTF-8"),
            ("Latin-1", b"caf\xe9", "not UTF-8 text"),
            ("all bytes", bytes(range(256)), "not UTF-8 text"),
            ("zero bytes", b"", "has no prompt one a line"),
            ("blank lines", b"\n \n\t\r\n\xc2\xa0\n", "has no prompt one a line"),
            ("only a BOM", b"\xef\xbb\xbf", "has no prompt one a line"),
            ("NUL bytes", b"a\0b\n", "NUL bytes UTF-8"),
        )
    ),
    Row(
        "prompts: a million",
        write("p.txt", "a\n" * 1_000_000),
        PROMPTS + "{place}/p.txt",
        "1,000,000 prompts 100,000 fewer",
    ),
    Row(
        "prompt not UTF-8",
        nothing,
        f"sample {RUN} --out={{place}}/new --prompt=\udcff",
        "valid Unicode",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.name.replace("\udcff", "") for row in ROWS])
def test_another_path_than_asked_for(row, kinds, loaded, monkeypatch):
    if row.command.split()[0] in ("encode", "decode", "reconstruct"):
        monkeypatch.setattr(pipeline, "load", lambda *arguments: loaded)
    check_row(row, kinds)
    assert not (kinds / "new").exists() and not (kinds / "new.npy").exists()


def test_a_scalar_is_no_codes(kinds, loaded):
    with pytest.raises(ValueError, match=r"int32 \[N, 64\], not int32 \[\]"):
        loaded.decode(np.load(kinds / "scalar.npy"))


@pytest.mark.parametrize("folder", ["a b", "ünïcode 猫", "deep/er/still", "ends.with.dots..", "-x"])
def test_names_of_folders_that_are_fine(folder, place, loaded, monkeypatch):
    monkeypatch.setattr(pipeline, "load", lambda *arguments: loaded)
    command = f"sample {RUN} --prompt=a --num=2 --out='{{place}}/{folder}'"
    assert run_command(command, place=place).code == 0
    assert [path.name for path in sorted((place / folder).iterdir())] == ["000.png", "001.png"]


def test_prompts_of_which_one_is_blank(place, loaded, monkeypatch):
    """A BOM and blank lines are no prompts, and CR LF ends a line."""
    monkeypatch.setattr(pipeline, "load", lambda *arguments: loaded)
    (place / "p.txt").write_bytes("\ufeffein Füchslein\r\n\r\n  two \r\n".encode())
    ended = run_command(PROMPTS + "{place}/p.txt", place=place)
    assert [line.split("  ")[1] for line in ended.out.splitlines()] == ["ein Füchslein", "two"]


@pytest.mark.parametrize(
    "command",
    [
        f"sample {RUN} --prompt=a --out={{place}}/new",
        f"train --config={SHAPES} --workdir={{place}}/new",
        "compare {place}/run --out={place}/new",
    ],
)
def test_a_folder_that_cannot_be_written_to(command, place, monkeypatch):
    """Root may write everywhere, so the question is answered for it."""
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    row = Row("", nothing, command, "new cannot be written to another folder")
    check_row(row, place)
    assert not (place / "new").exists()


@pytest.mark.parametrize("path", ["/proc/new", "/proc/1/new", "/dev/null/new"])
def test_folders_that_no_one_can_create(path, place, loaded, monkeypatch):
    monkeypatch.setattr(pipeline, "load", lambda *arguments: loaded)
    check_row(Row("", nothing, f"sample {RUN} --prompt=a --out={path}", f"{path} another"), place)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only")]
)
def test_a_folder_that_becomes_read_only(error, place, loaded, monkeypatch):
    """A picture that cannot be written is named, and those before it stay."""
    monkeypatch.setattr(pipeline, "load", lambda *arguments: loaded)
    save, count = pipeline.Image.Image.save, []

    def fail(image, *arguments, **options):
        count.append(1)
        if len(count) > 1:
            raise error
        save(image, *arguments, **options)

    monkeypatch.setattr(pipeline.Image.Image, "save", fail)
    command = f"sample {RUN} --prompt=a --num=2 --out={{place}}/new"
    ended = run_command(command, place=place)
    assert ended.code == 1 and f"{place}/new/001.png: {error.strerror}" in ended.err
    assert [path.name for path in (place / "new").iterdir()] == ["000.png"]
