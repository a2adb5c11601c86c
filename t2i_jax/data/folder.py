"""`folder`: your own pictures, with your own captions.

`config.path` is a folder of pictures of any size and mode, searched with its subfolders. Captions
are either

    next to them    cat.png and cat.txt
    or in one file  captions.jsonl, metadata.jsonl, captions.csv or metadata.csv at the top, with a
                    row for each caption: `file_name` (or `image`, `file`), relative to the file,
                    and `text` (or `caption`), as in data sets of Hugging Face

in UTF-8. If a picture has both, the one file counts. Several rows of a picture are several
examples. Hidden files and links to folders are ignored.

If there are subfolders train/, validation/ or test/, they are the splits, and each may have its own
captions file. A split without a folder is then taken from train/. Without such subfolders, a hash
of the name puts 1/20 of the pictures into validation and 1/20 into test.

The first use decodes every picture once and writes an index of the valid ones to data_dir()/folder.
It is written again when a name, a size or a time in the folder changes. The user is told what is
skipped, and too much of it is an error.
"""

import hashlib
import json
import os
import posixpath
import unicodedata
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from t2i_jax.core import source
from t2i_jax.core.fields import Field
from t2i_jax.core.files import data_dir, fingerprint
from t2i_jax.core.threads import num_threads
from t2i_jax.data import buckets, caption_table, pictures, scan_report
from t2i_jax.data.picture_reader import picture_reader

SPLITS = ("train", "validation", "test")
CAPTION_LAYOUTS = (
    f"NAME.txt beside NAME.png, or one of {', '.join(caption_table.FILE_NAMES)} at the top with "
    f"file_name and text"
)
INDEX_VERSION = 3  # raise it when the index changes, what counts as valid, or the splits
SCAN_BLOCK = 1024  # pictures scanned before a Ctrl-C is noticed


class Index(NamedTuple):
    """What a scan found.

    examples: (file, sha256 of its bytes, caption, split, width / height).
    skipped: (file, reason).
    """

    examples: list[tuple[str, str, str, str, float]]
    skipped: list[tuple[str, str]]


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.data` for folder."""
    del config
    return folder_fields("pictures")


def folder_fields(what: str) -> dict[str, Field]:
    """Return the fields of every source that reads a folder. what: is in the folder."""
    return {
        "path": Field("", f"the folder of {what}"),
        "resolution": Field(64, "pixels a side", 8, 1024),
        "sizes": buckets.FIELD,
        "max_skipped": Field(0.1, "largest share of unusable pictures that is no error", 0.0, 1.0),
        "augmentations": Field(
            (), 'augmentations that keep your captions true, such as ("flip", "crop")'
        ),
    }


def find_folder(config, name: str, example: str = "FOLDER") -> Path:
    """Return the whole path of `config.path`.

    name: of the data source.   example: stands for a path in the error.
    Raises ValueError if it is empty, and FileNotFoundError if there is no such folder.
    """
    if not getattr(config, "path", None):
        raise ValueError(f"{name} needs a path: --config.data.path={example}")
    folder = Path(config.path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} (config.data.path)")
    return folder.resolve()


def no_examples(folder: Path, split: str, present: Collection[str]) -> ValueError:
    """Return the error of a split without examples. present: the splits that have some."""
    return ValueError(
        f"{folder} has no examples in split {split!r}: it has {', '.join(present)}; give at least "
        f"3 pictures, or some in {folder / split}/"
    )


def make(config, split: str) -> source.Source:
    """Return the pictures of `config.path` at `config.resolution`.

    Scans the folder on first use and when it has changed. At most `config.max_skipped` (default
    0.1) of the pictures may be unusable. `config.augmentations` (default none) names those that
    keep your captions true: ("flip", "crop").

    Raises FileNotFoundError if there is no such folder. Raises ValueError, saying what and where,
    if it has no pictures, no captions or no such split, if a row of a captions file is wrong, and
    if too much was skipped. `read` raises ValueError if a file is gone or has changed.
    """
    folder = find_folder(config, "folder", "FOLDER_OF_PICTURES")
    home = data_dir() / "folder" / fingerprint(_encode(str(folder)))[:16]
    index = _load_index(folder, home, int(config.resolution))
    listed, usable = home / "skipped.txt", len({file for file, *_ in index.examples})
    max_skipped = float(getattr(config, "max_skipped", 0.1))
    scan_report.check_skipped(index.skipped, usable, folder, listed, max_skipped)
    examples = [example for example in index.examples if example[3] == split]
    if not examples:
        present = [name for name in SPLITS if any(e[3] == name for e in index.examples)]
        raise no_examples(folder, split, present)
    captions = [caption for _, _, caption, *_ in examples]
    content = b"".join(_encode(json.dumps(example[:4])) for example in examples)
    sizes = buckets.sizes_of(config)
    mark = fingerprint("folder", config.resolution, split, content, *sizes)
    hashes = {file: sha256 for file, sha256, *_ in examples}
    rows = {file: row for row, file in enumerate(hashes)}
    row_of = np.array([rows[file] for file, *_ in examples])

    def reader(height: int, width: int):
        decode = _decoder(folder, list(hashes.items()), height, width)
        return picture_reader(decode, len(hashes), row_of, height, width)

    read = reader(int(config.resolution), int(config.resolution))
    in_sizes = buckets.make_buckets(sizes, [example[4] for example in examples], reader)
    augmentations: tuple[str, ...] = getattr(config, "augmentations", ())
    variants = dict.fromkeys(augmentations, captions)
    empty, total = sum(not caption for caption in captions), len(index.examples)
    notes = scan_report.notes(index.skipped, listed, split, len(captions), empty, total)
    return source.Source(captions, read, mark, notes, variants=variants, buckets=in_sizes)


def assign_splits(files: list[str], folders: Collection[str] | None = None) -> dict[str, str]:
    """Return {file: split}: by subfolder if one is named like a split, else by hash of the name.

    files: names relative to the folder.
    folders: the split folders that exist; by default those that have files. If there are any, a
        file outside of them gets no split and is left out. A split without a folder is taken from
        train/.
    """
    by_folder = {
        file: file.split("/")[0] for file in files if file.split("/")[0] in SPLITS and "/" in file
    }
    if not by_folder:
        return _split_by_hash(files)
    folders = set(by_folder.values()) if folders is None else folders
    taken = _split_by_hash([file for file, split in by_folder.items() if split == "train"])
    return by_folder | {file: split for file, split in taken.items() if split not in folders}


def _split_by_hash(files: list[str]) -> dict[str, str]:
    """Return {file: split}: 1/20 validation, 1/20 test, the rest train.

    Of three or more files, at least one goes to each split. Of fewer, all go to train.
    """
    digest = {file: hashlib.sha256(_encode(_nfc(file))).digest() for file in files}
    ordered = sorted(files, key=lambda file: (digest[file], file))
    share = [int.from_bytes(digest[file][:8]) / 2**64 for file in ordered]
    n = len(files)
    tests = min(max(sum(s < 0.05 for s in share), 1), n - 2) if n >= 3 else 0
    validations = min(max(sum(0.05 <= s < 0.1 for s in share), 1), n - 1 - tests) if n >= 3 else 0
    names = ["test"] * tests + ["validation"] * validations
    return dict(zip(ordered, names + ["train"] * (n - len(names)), strict=True))


def _load_index(folder, home, resolution):
    """Return the index kept in `home`, or scan the folder again if it has changed since."""
    files = _walk(folder)
    signature = fingerprint(INDEX_VERSION, json.dumps(sorted(files.items())))
    path = home / "index.jsonl"
    if path.exists():
        head, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        if head["signature"] == signature:
            return Index(list(map(tuple, lines)), list(map(tuple, head["skipped"])))
    index = _scan(folder, sorted(files), resolution)
    head = {"folder": str(folder), "signature": signature, "skipped": index.skipped}
    home.mkdir(parents=True, exist_ok=True)
    scan_report.write_skipped(home / "skipped.txt", index.skipped)
    scan_report.write_lines(path, map(json.dumps, [head, *index.examples]))
    return index


def _walk(folder):
    """Return {file: (size, mtime in ns)} of all files of the folder that are not hidden.

    A file is its path relative to the folder, with /.
    """

    def fail(error):
        raise error

    files = {}
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                path = Path(parent, name)
                status = path.stat() if path.exists() else None  # a broken link has none
                files[path.relative_to(folder).as_posix()] = (
                    (status.st_size, status.st_mtime_ns) if status else (-1, -1)
                )
    return files


def _scan(folder, files, resolution):
    """Return the index of a folder with these files (sorted). Shows progress."""
    captions = _read_captions(folder, files)
    wanted = [file for file in files if file in captions or _is_picture(file)]
    if not any(map(_is_picture, wanted)):
        suffixes = ", ".join(sorted(pictures.SUFFIXES))
        raise ValueError(f"{folder} has no pictures: they end in {suffixes}")
    present = set(files)
    if not captions and not any(_caption_file(file) in present for file in wanted):
        raise ValueError(f"{folder} has no captions: they can be {CAPTION_LAYOUTS}")
    split_folders = {file.split("/")[0] for file in wanted if "/" in file} & set(SPLITS)
    missing = "named in a captions file, but not there"
    skipped = [(file, missing) for file in captions if file not in present]
    good = []

    def examine(file):
        """Return (sha256, width / height, captions) of a valid picture, or why it is skipped."""
        if split_folders and file.split("/")[0] not in split_folders:
            return f"outside of {'/, '.join(SPLITS)}/"
        caption_file = _caption_file(file)
        if file not in captions and caption_file not in present:
            return "no caption"
        try:
            content = (folder / file).read_bytes()
            width, height = pictures.open_rgb(content, 2 * resolution).size
            own = captions.get(file) or [
                (folder / caption_file).read_text(encoding="utf-8-sig").strip()
            ]
        except UnicodeDecodeError as error:
            return f"{caption_file} is not UTF-8 ({error.reason})"
        except (OSError, ValueError) as error:
            return str(error)
        return hashlib.sha256(content).hexdigest(), width / height, own

    with (
        ThreadPoolExecutor(num_threads()) as pool,
        tqdm(total=len(wanted), desc=f"scanning {folder}", disable=None) as bar,
    ):
        for start in range(0, len(wanted), SCAN_BLOCK):
            block = wanted[start : start + SCAN_BLOCK]
            for file, found in zip(block, pool.map(examine, block), strict=True):
                if isinstance(found, str):
                    skipped.append((file, found))
                else:
                    good.append((file, *found))
                bar.update()
    splits = assign_splits([file for file, *_ in good], split_folders)
    examples = [
        (file, sha256, text, splits[file], aspect)
        for file, sha256, aspect, own in good
        for text in own
    ]
    return Index(sorted(examples), sorted(skipped))


def _read_captions(folder, files):
    """Return {file: [caption, ...]} of all captions files of the folder and its split folders."""
    # A table may spell é as one character, and the disk as two.
    on_disk = {_nfc(file): file for file in files}
    present, captions = set(files), {}
    for top in ("", *(split + "/" for split in SPLITS)):
        tables = [name for name in caption_table.FILE_NAMES if top + name in present]
        if len(tables) > 1:
            names = " and ".join(tables)
            raise ValueError(f"{folder / top} has {names}: it needs one captions file")
        for file, text in caption_table.read_table(folder / top / tables[0]) if tables else ():
            file = posixpath.normpath(top + file)
            captions.setdefault(on_disk.get(_nfc(file), file), []).append(text)
    return captions


def _decoder(folder, files, height, width) -> Callable[[int], np.ndarray]:
    """Return row -> pixels of the picture files[row]. `files` are (name, sha256) pairs."""

    def decode(row):
        file, sha256 = files[row]
        try:
            content = (folder / file).read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise ValueError(
                    "it is not the file that was scanned; start again to scan the folder anew"
                )
            return pictures.fit(pictures.open_rgb(content, 2 * max(height, width)), height, width)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder / file} cannot be read any more: {error}") from error

    return decode


def _is_picture(file):
    return posixpath.splitext(file)[1].lower() in pictures.SUFFIXES


def _caption_file(file):
    """Return the name of the text file next to a picture."""
    return posixpath.splitext(file)[0] + ".txt"


def _nfc(text):
    return unicodedata.normalize("NFC", text)


def _encode(text):
    """Encode as UTF-8, also names of files that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape")
