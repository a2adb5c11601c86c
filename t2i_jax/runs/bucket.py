"""Run folders in a bucket of Google Cloud Storage: gs://BUCKET/RUN.

Orbax reads and writes the checkpoints in the bucket, and each process its own part of them. All
other files of a run are read and written in a local copy of its folder, because no line can be
added to a file in a bucket. The first process uploads that copy before each checkpoint is saved,
so a run can always go on from what the bucket holds. The copy ends with its process.
"""

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import fsspec.config
from etils import epath

from t2i_jax.core import hosts
from t2i_jax.core.files import data_dir

# Else epath reads buckets with TensorFlow. It looks once, so this is before anything uses it.
os.environ.setdefault("EPATH_USE_TF", "false")

PREFIX = "gs://"
COMPLETE = "commit_success.txt"  # Orbax writes it last: a folder in a bucket cannot be renamed
# Folders that are not copied. Checkpoints that could not be read are in the second.
ONLY_THERE = ("checkpoints", "broken")


class Copy(NamedTuple):
    """The local copy of a run's folder.

    address: gs://BUCKET/RUN.   there: the same as a path.
    uploaded: {path in the folder: (bytes, time of its last change)}, as it is in the bucket.
    parent: the temporary folder that it lies in.
    """

    address: str
    there: epath.Path
    folder: Path
    uploaded: dict[str, tuple[int, int]]
    parent: tempfile.TemporaryDirectory


_copies: list[Copy] = []  # of this process


def local_folder(workdir) -> Path:
    """Return the folder of a run on this machine: of one in a bucket, the local copy.

    The first call downloads it.
    Raises ValueError for another kind of address, and if gcsfs is not installed; OSError if the
    bucket cannot be read.
    """
    address = str(workdir).rstrip("/")
    if "://" not in address:
        return Path(workdir)
    if not address.startswith(PREFIX):
        raise ValueError(
            f"{address}: of buckets, those of Google Cloud Storage can be used (gs://BUCKET/RUN); "
            "mount others as a folder"
        )
    found = next((copy.folder for copy in _copies if copy.address == address), None)
    return found or _download(address)


def checkpoint_folder(workdir) -> Path | epath.Path:
    """Return the folder of a run's checkpoints, in the bucket if the run is in one."""
    folder = local_folder(workdir)
    copy = _copy_in(folder)
    return (copy.there if copy else folder.resolve()) / "checkpoints"


def is_complete(folder: Path | epath.Path) -> bool:
    """Return whether a checkpoint's folder is there as a whole. Orbax writes others beside it."""
    if not (folder.name.isdecimal() and folder.is_dir()):
        return False
    return not str(folder).startswith(PREFIX) or (folder / COMPLETE).exists()


def upload(folder: Path) -> None:
    """Upload what has changed in a local copy since it was downloaded or uploaded; run.json last.

    Only the first process does so, and a folder that is no copy is left alone.
    Raises OSError if the bucket cannot be written.
    """
    copy = _copy_in(folder)
    if copy is None or not hosts.is_first():
        return
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    for path in sorted(files, key=lambda path: path.name == "run.json"):
        name = path.relative_to(folder).as_posix()
        if name == "lock" or path.suffix == ".tmp" or "incomplete-" in name:
            continue
        state = _state(path)
        if copy.uploaded.get(name) != state:
            _transfer(path, copy.there / name)
            copy.uploaded[name] = state


def _copy_in(folder: Path) -> Copy | None:
    return next((copy for copy in _copies if copy.folder == Path(folder)), None)


def _download(address: str) -> Path:
    # What Orbax writes is not seen by the list of files that fsspec would keep.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    for name in ("gcsfs", "google.auth"):  # they print each attempt; what fails is raised
        logging.getLogger(name).setLevel(logging.CRITICAL)
    (data_dir() / "runs").mkdir(parents=True, exist_ok=True)
    parent = tempfile.TemporaryDirectory(dir=data_dir() / "runs")
    folder = Path(parent.name, address.removeprefix(PREFIX))
    copy = Copy(address, epath.Path(address), folder, {}, parent)
    try:
        _download_folder(copy.there, copy)
    except ImportError as error:
        raise ValueError(f"{address} needs gcsfs: pip install t2i_jax[gcs]") from error
    _copies.append(copy)
    return folder


def _download_folder(there: epath.Path, copy: Copy) -> None:
    inside = there.relative_to(copy.there)
    (copy.folder / inside).mkdir(parents=True, exist_ok=True)
    for path in _list(there):
        if path.name in ONLY_THERE:
            continue
        if path.is_dir():
            _download_folder(path, copy)
        else:
            here = copy.folder / inside / path.name
            _transfer(path, here)
            copy.uploaded[(inside / path.name).as_posix()] = _state(here)


def _list(there: epath.Path) -> list[epath.Path]:
    try:
        return list(there.iterdir())
    except FileNotFoundError:
        return []  # a new run
    except ImportError:
        raise
    except Exception as error:  # gcsfs has its own kinds for a refused or a lost connection
        raise OSError(f"{there} cannot be read ({error})") from error


def _transfer(source: Path | epath.Path, target: Path | epath.Path) -> None:
    try:
        with source.open("rb") as reader, target.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 2**24)
    except OSError:
        raise
    except Exception as error:  # as in `_list`
        raise OSError(f"{source} could not be copied to {target} ({error})") from error


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns
