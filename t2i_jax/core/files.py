"""Files: where prepared data lies, complete writes, and fingerprints."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etils import epath


def data_dir() -> Path:
    """Return the folder of prepared data: $T2I_JAX_DATA, or ~/.cache/t2i_jax."""
    return Path(os.environ.get("T2I_JAX_DATA") or Path.home() / ".cache" / "t2i_jax")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write a file or folder to; it becomes `path` when the block ends.

    A reader therefore never sees `path` half written. If the block raises, nothing is left behind.
    If another process has created the folder `path` in the meantime, that one is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        name_file(path),
        tempfile.TemporaryDirectory(dir=path.parent, prefix="incomplete-") as folder,
    ):
        part = Path(folder) / path.name
        yield part
        try:
            part.replace(path)
        except OSError:
            if not path.is_dir():  # else another process was faster, with the same content
                raise


@contextlib.contextmanager
def name_file(path) -> Iterator[None]:
    """Let an OSError of the block that names no file, such as that of a full disk, name `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


@contextlib.contextmanager
def complete_files(folder: Path) -> Iterator[Path]:
    """Yield an empty folder; when the block ends, its files replace those of `folder`.

    If the block raises, the files of `folder` stay as they were.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="incomplete-") as new:
        yield Path(new)
        for file in Path(new).iterdir():
            file.replace(folder / file.name)


def read_json(path: Path | epath.Path) -> dict:
    """Read a JSON object. Raises ValueError, naming the file, if it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, or put it back") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged (it holds no object): delete it, or put it back")
    return found


def check_folder(path) -> Path:
    """Return `path`. Raises OSError, saying what would be right, if it cannot become a folder."""
    path = Path(path)
    there = next(p for p in (path.absolute(), *path.absolute().parents) if os.path.lexists(p))
    which = there if there == path.absolute() else f"{path}: {there}"
    if not there.is_dir():
        what = "a broken link" if there.is_symlink() and not there.exists() else "a file"
        raise NotADirectoryError(f"{which} is {what}, not a folder: name another folder")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{which} cannot be written to: name another folder")
    return path


def empty_folder(path: str | Path, option: str) -> Path:
    """Return the folder at `path`, which may not exist yet.

    option: of the command line that gave it, for messages.
    Raises FileExistsError if it is not empty.
    """
    folder = check_folder(path)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{path} is not empty: name another {option}")
    return folder


def make_folder(path) -> Path:
    """Create a folder, and those above it, if it is not there. Raises OSError as `check_folder`."""
    path = check_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            f"{path} cannot be created ({error.strerror}): name another folder"
        ) from error
    return path


def write_atomically(path: Path | epath.Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it: `path` is never half written.

    A file in a bucket is there as a whole or not at all, so it is written as it is.
    """
    if "://" in str(path):
        path.write_text(text, encoding="utf-8")
        return
    temporary = path.with_suffix(".tmp")
    with name_file(path):
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


def fingerprint(*parts) -> str:
    """Return the sha256 (hex) of the parts, in order. Bytes count as they are, others as text."""
    digest = hashlib.sha256()
    for part in parts:
        blob = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(blob).to_bytes(8, "little") + blob)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
