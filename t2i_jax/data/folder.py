"""`folder`: your own pictures, with your own captions.

`config.path` is a folder of pictures of any size and mode, searched with its subfolders. The captions are either

    beside them     cat.png and cat.txt
    or in one file  captions.jsonl, metadata.jsonl, captions.csv or metadata.csv at the top, a row a caption, with
                    `file_name` (or `image`, `file`) relative to it and `text` (or `caption`), as Hugging Face has it

in UTF-8. If a picture has both, the one file is right; several rows of a picture are several examples. Hidden files and
links to folders are not looked at.

Subfolders train/, validation/ and test/ are the splits, if there is one of them (each may have its own captions file);
otherwise a hash of the name puts 1/20 into validation and 1/20 into test. A split without its folder is taken from train/ so.

The first use decodes every picture once and writes an index of the valid ones to data_dir()/folder; it is written
again when a name, a size or a time in the folder changes. What is skipped is said, and too much of it is an error.
"""

import csv
import functools
import hashlib
import io
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

from t2i_jax.data import pictures, source

SPLITS = ("train", "validation", "test")
TABLES = ("captions.jsonl", "metadata.jsonl", "captions.csv", "metadata.csv")
FILE_KEYS, TEXT_KEYS = ("file_name", "image", "file"), ("text", "caption")
LAYOUTS = f"NAME.txt beside NAME.png, or one of {', '.join(TABLES)} at the top with file_name and text"
CACHE_BYTES = 2**30  # a split that decodes to less stays in memory
INDEX_VERSION = 2  # raise it when what counts as valid changes, or which split it is in
BLOCK = 1024  # pictures scanned between two looks at whether to stop


class Index(NamedTuple):
    """What a scan found: `examples` are (file, sha256 of its bytes, caption, split), `skipped` (file, reason)."""

    examples: list[tuple[str, str, str, str]]
    skipped: list[tuple[str, str]]


def make(config, split: str) -> source.Source:
    """The pictures of `config.path` at `config.resolution`; scans the folder on first use and when it has changed.

    At most `config.max_skipped` (default 0.1) of the pictures may be unusable. Raises FileNotFoundError if there is no
    such folder; ValueError, saying what and where, if it has no pictures, no captions or no such split, if a row of a
    captions file is wrong, and if too much was skipped. `read` raises ValueError if a file is gone or has changed.
    `config.augmentations` (default none) are those under which you know your captions to stay true: ("flip", "crop").
    """
    if not getattr(config, "path", None):
        raise ValueError("folder needs a path: --config.data.path=FOLDER_OF_PICTURES")
    folder = Path(config.path).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    home = source.data_dir() / "folder" / source.fingerprint(_bytes(str(folder)))[:16]
    index = _indexed(folder, home, int(config.resolution))
    _check(index, folder, home, float(getattr(config, "max_skipped", 0.1)))
    examples = [example for example in index.examples if example[3] == split]
    if not examples:
        there = ", ".join(name for name in SPLITS if any(e[3] == name for e in index.examples))
        raise ValueError(f"{folder} has no examples in split {split!r}: it has {there}")
    captions = [caption for _, _, caption, _ in examples]
    content = b"".join(_bytes(json.dumps(example)) for example in examples)
    mark = source.fingerprint("folder", config.resolution, split, content)
    hashes = {file: sha256 for file, sha256, _, _ in examples}
    rows = {file: row for row, file in enumerate(hashes)}
    place = np.array([rows[file] for file, *_ in examples])
    read = _reader(folder, list(hashes.items()), place, int(config.resolution))
    variants = dict.fromkeys(getattr(config, "augmentations", ()), captions)
    return source.Source(captions, read, mark, _notes(index, captions, split, home), variants=variants)


def assign(files: list[str], there: Collection[str] | None = None) -> dict[str, str]:
    """{file: split} for names relative to the folder: by subfolder if one is named as a split, else by hash.

    With subfolders, what is outside of them has no split and is left out, and a split that is not one of `there` (by
    default, of those that have files) is taken from train/.
    """
    named = {file: file.split("/")[0] for file in files if file.split("/")[0] in SPLITS and "/" in file}
    if not named:
        return _by_hash(files)
    there = set(named.values()) if there is None else there
    taken = _by_hash([file for file, split in named.items() if split == "train"])
    return named | {file: split for file, split in taken.items() if split not in there}


def _by_hash(files: list[str]) -> dict[str, str]:
    """{file: split}: 1/20 of three or more are validation and 1/20 test, at least one each; of fewer, all are train."""
    chance = {file: hashlib.sha256(_bytes(_nfc(file))).digest() for file in files}
    ordered = sorted(files, key=lambda file: (chance[file], file))
    share = [int.from_bytes(chance[file][:8]) / 2**64 for file in ordered]
    n = len(files)
    tests = min(max(sum(s < 0.05 for s in share), 1), n - 2) if n >= 3 else 0
    validations = min(max(sum(0.05 <= s < 0.1 for s in share), 1), n - 1 - tests) if n >= 3 else 0
    names = ["test"] * tests + ["validation"] * validations
    return dict(zip(ordered, names + ["train"] * (n - len(names)), strict=True))


def table(path: Path) -> list[tuple[str, str]]:
    """The (file, caption) rows of a .jsonl or .csv file, in its order; a caption that is null is "".

    Raises ValueError naming file and line if a row is not what it should be.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 ({error.reason})") from error
    return [_row(path, line, row) for line, row in (_json_rows if path.suffix == ".jsonl" else _csv_rows)(path, text)]


def _json_rows(path, text):
    for line, row in enumerate(text.split("\n"), 1):
        if row.strip():
            try:
                yield line, json.loads(row)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {line}: not JSON ({error})") from error


def _csv_rows(path, text):
    lines = csv.DictReader(io.StringIO(text), strict=True)
    try:
        for row in lines:
            if None in row or None in row.values():
                raise ValueError(f"{path}, line {lines.line_num}: needs {len(lines.fieldnames)} columns, as in line 1")
            yield lines.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}, line {lines.line_num + 1}: not CSV ({error})") from error  # where the row starts


def _row(path, line, row):
    """(file, caption) of one row, which is from line `line` of the file `path`."""
    if not isinstance(row, dict):
        raise ValueError(f"{path}, line {line}: needs an object with file_name and text, got {row!r:.80}")
    values = []
    for keys in (FILE_KEYS, TEXT_KEYS):
        key = next((key for key in keys if key in row), None)
        if key is None:
            raise ValueError(f"{path}, line {line}: needs {' or '.join(keys)}, has {', '.join(map(str, row))}")
        value = "" if keys is TEXT_KEYS and row[key] is None else row[key]
        if not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError(f"{path}, line {line}: {key} needs to be text, got {value!r:.80}")
        values.append(value)
    return posixpath.normpath(values[0]), values[1].strip()


def _indexed(folder, home, resolution):
    """The index kept in `home`, if the folder is still as it was; else that of a new scan, which is then kept."""
    files = _walk(folder)
    signature = source.fingerprint(INDEX_VERSION, json.dumps(sorted(files.items())))
    kept = home / "index.jsonl"
    if kept.exists():
        head, *lines = map(json.loads, kept.read_text(encoding="utf-8").splitlines())
        if head["signature"] == signature:
            return Index(list(map(tuple, lines)), list(map(tuple, head["skipped"])))
    index = _scan(folder, sorted(files), resolution)
    head = {"folder": str(folder), "signature": signature, "skipped": index.skipped}
    home.mkdir(parents=True, exist_ok=True)
    _write(home / "skipped.txt", (f"{file}: {reason}" for file, reason in index.skipped))
    _write(kept, map(json.dumps, [head, *index.examples]))
    return index


def _walk(folder):
    """{path relative to the folder, with /: (size, mtime in ns)} of all its files; hidden ones are left out."""

    def fail(error):
        raise error

    files = {}
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                path = Path(parent, name)
                status = path.stat() if path.exists() else None  # a broken link has none
                files[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns) if status else (-1, -1)
    return files


def _scan(folder, files, resolution):
    """The index of a folder with these files (sorted); shows progress."""
    captions = _captions(folder, files)
    wanted = [file for file in files if file in captions or posixpath.splitext(file)[1].lower() in pictures.SUFFIXES]
    if not any(posixpath.splitext(file)[1].lower() in pictures.SUFFIXES for file in wanted):
        raise ValueError(f"{folder} has no pictures: they end in {', '.join(sorted(pictures.SUFFIXES))}")
    present, subfolders = set(files), {file.split("/")[0] for file in wanted if "/" in file} & set(SPLITS)
    skipped = [(file, "named in a captions file, but not there") for file in captions if file not in present]
    good = []
    if not captions and not any(posixpath.splitext(file)[0] + ".txt" in present for file in wanted):
        raise ValueError(f"{folder} has no captions: they can be {LAYOUTS}")

    def examine(file):
        """(sha256, captions) of a valid picture; of another, why it is skipped."""
        beside = posixpath.splitext(file)[0] + ".txt"
        if subfolders and file.split("/")[0] not in subfolders:
            return f"outside of {'/, '.join(SPLITS)}/"
        if file not in captions and beside not in present:
            return "no caption"
        try:
            content = (folder / file).read_bytes()
            pictures.decode(content, resolution)
            said = captions.get(file) or [(folder / beside).read_text(encoding="utf-8-sig").strip()]
        except UnicodeDecodeError as error:
            return f"{beside} is not UTF-8 ({error.reason})"
        except (OSError, ValueError) as error:
            return str(error)
        return hashlib.sha256(content).hexdigest(), said

    with (
        ThreadPoolExecutor(_threads()) as pool,
        tqdm(total=len(wanted), desc=f"scanning {folder}", disable=None) as bar,
    ):
        for start in range(0, len(wanted), BLOCK):
            block = wanted[start : start + BLOCK]
            for file, found in zip(block, pool.map(examine, block), strict=True):
                if isinstance(found, str):
                    skipped.append((file, found))
                else:
                    good.append((file, *found))
                bar.update()
    splits = assign([file for file, _, _ in good], subfolders)
    examples = [(file, sha256, text, splits[file]) for file, sha256, said in good for text in said]
    return Index(sorted(examples), sorted(skipped))


def _captions(folder, files):
    """{file: [caption, ...]} of all captions files at the top of the folder and of its split folders."""
    on_disk = {_nfc(file): file for file in files}  # a table may spell é as one character and the disk as two
    present, captions = set(files), {}
    for top in ("", *(split + "/" for split in SPLITS)):
        there = [name for name in TABLES if top + name in present]
        if len(there) > 1:
            raise ValueError(f"{folder / top} has {' and '.join(there)}: it needs one captions file")
        for file, text in table(folder / top / there[0]) if there else ():
            file = posixpath.normpath(top + file)
            captions.setdefault(on_disk.get(_nfc(file), file), []).append(text)
    return captions


def _check(index, folder, home, max_skipped):
    """Raises ValueError if nothing is left, or more than the share `max_skipped` was skipped."""
    skipped, left = len(index.skipped), len({file for file, *_ in index.examples})
    if not left or skipped > max_skipped * (skipped + left):
        raise ValueError(
            f"{skipped} of {skipped + left} pictures in {folder} cannot be used, more than max_skipped={max_skipped:g} "
            f"allows; all of them are listed in {home / 'skipped.txt'}, the first are\n" + "\n".join(_first(index))
        )


def _notes(index, captions, split, home):
    """What a person should be told, a line each."""
    notes = []
    if index.skipped:
        notes += [f"{len(index.skipped)} files skipped, listed in {home / 'skipped.txt'}:", *_first(index)]
    if empty := sum(not caption for caption in captions):
        notes.append(f"{empty} of {len(captions)} captions in {split} are empty: these examples are unconditional")
    return notes


def _first(index):
    return [f"  {file}: {reason}" for file, reason in index.skipped[:10]]


def _reader(folder, files, place, resolution) -> Callable[[np.ndarray], np.ndarray]:
    """`read` of a Source whose example i is the picture files[place[i]]; files are (name, sha256)."""
    pool = functools.cache(lambda: ThreadPoolExecutor(_threads()))  # no threads before the first read
    shape = (resolution, resolution, 3)
    cached = len(files) * int(np.prod(shape)) < CACHE_BYTES
    cache, filled = (np.zeros((len(files), *shape), np.uint8), np.zeros(len(files), bool)) if cached else (None, None)

    def decode(row):
        file, sha256 = files[row]
        try:
            content = (folder / file).read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise ValueError("it is not the file that was scanned; start again to scan the folder anew")
            return pictures.decode(content, resolution)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder / file} cannot be read any more: {error}") from error

    def read(positions):
        rows = place[np.asarray(positions, np.int64)]
        if cache is None:
            return np.array(list(pool().map(decode, rows)), np.uint8).reshape(-1, *shape)
        needed = np.unique(rows[~filled[rows]])
        for row, image in zip(needed, pool().map(decode, needed) if len(needed) else (), strict=True):
            cache[row], filled[row] = image, True  # in this order: another thread may be reading
        return cache[rows]

    return read


def _write(path, lines):
    """Writes a text file that is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)
    os.replace(temporary, path)


def _threads():
    return min(8, os.cpu_count() or 1)


def _nfc(text):
    return unicodedata.normalize("NFC", text)


def _bytes(text):
    """UTF-8, also of file names that are not."""
    return text.encode("utf-8", "surrogateescape")
