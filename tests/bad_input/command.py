"""Runs a command in this process, and checks how it ends: exit code, one line, nothing damaged."""

import contextlib
import hashlib
import io
import resource
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image, PngImagePlugin

from t2i_jax import cli
from tests.conftest import ROOT

SHAPES = f"{ROOT}/configs/shapes.py:smoke"
OVERRIDES = ("train.steps=4", "train.eval_every=0", "evaluate.num=4")
MAY_CHANGE = ("lock",)  # of a run folder, when a command is refused


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Row(NamedTuple):
    """One bad input.

    name: of the test.
    damage: (the fixture `place`) -> None, what is done before the command.
    command: what is typed; {place} stands for the folder.
    words: what the error must say, separated by blanks; of a row that ends with 0, the output.
    code: the exit code; 0 where the program can mend it, and says so.
    """

    name: str
    damage: Callable[[Path], object]
    command: str
    words: str
    code: int = 1


def run_command(command: str, **places) -> Ended:
    """Run a command line; {name} in it stands for `places[name]`."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    arguments = [argument.format(**places) for argument in shlex.split(command)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(arguments)
        except SystemExit as stop:
            # As Python does at the end of a process: a text is printed, and the exit code is 1.
            code = stop.code if isinstance(stop.code, int) else 1
            if not isinstance(stop.code, int):
                print(stop.code, file=err)
    return Ended(code, out.getvalue(), err.getvalue())


def check_row(row: Row, place: Path) -> None:
    """Damage `place` as the row says, run its command, and check how it ends."""
    row.damage(place)
    before = snapshot(place)
    ended = run_command(row.command, place=place)
    assert ended.code == row.code, ended
    if row.code:
        check_one_line(ended.err)
        after = snapshot(place)
        changed = [name for name in before if before[name] != after.get(name)]
        assert [name for name in changed if Path(name).name not in MAY_CHANGE] == []
        assert not [name for name in after.keys() - before if "incomplete" in name]
    said = ended.err if row.code else ended.out
    missing = [word for word in row.words.split() if word not in said]
    assert not missing, (missing, ended)


def check_one_line(text: str) -> None:
    """Check that a text is one line; a list after it is indented."""
    assert text.strip() and "Traceback" not in text, text
    lines = [line for line in text.splitlines() if not line.startswith("warning: ")]
    assert len([line for line in lines if not line.startswith("  ")]) == 1, text
    assert len(text) < 2000, text


def snapshot(folder: Path) -> dict[str, str]:
    """Return {path: hash} of all files of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file grow beyond `limit` bytes, as if the disk were full."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    """Return a damage: the file `name` gets this content."""
    content = content.encode() if isinstance(content, str) else content
    return lambda place: (place / name).write_bytes(content)


def nothing(place: Path) -> None:
    """Damage nothing."""


def put_metadata(path: Path, text: str) -> None:
    """Write a picture again, with this text as its metadata."""
    with Image.open(path) as image:
        image.load()
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("t2i_jax", text)
    image.save(path, pnginfo=chunks)
