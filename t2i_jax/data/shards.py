"""Captioned pictures in large files (shards), found again by an index on disk.

A format of shards is two functions (`Format`): one lists the pictures of a shard with their
captions, one reads a single picture. Everything else is the same for all formats, and is as in
`folder`:

- Subfolders train/, validation/ and test/ are the splits. Without them, a hash of the shard's and
  the picture's name puts 1/20 of the pictures into validation and 1/20 into test.
- The first use decodes every picture once and writes an index to data_dir(). It is written again
  when the name, the size or the time of a shard changes.
- A picture without a caption, or one that cannot be decoded, is skipped. Too many of them are an
  error. A shard that is damaged or cut short is an error at once, because nobody knows how much of
  it is missing.

The index holds where each picture is, and all captions. Captions stay on disk: a source reads each
one when it is asked for. Any picture can be read at any time, so that training goes on exactly
where it stopped, on any number of hosts.
"""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from t2i_jax.core import source
from t2i_jax.core.files import atomic_path, data_dir, fingerprint
from t2i_jax.core.threads import num_threads
from t2i_jax.data import buckets, pictures, scan_report
from t2i_jax.data.folder import SPLITS, assign_splits, find_folder, no_examples
from t2i_jax.data.picture_reader import picture_reader
from t2i_jax.data.stored_texts import StoredTexts

INDEX_VERSION = 2  # raise it when the index, what counts as valid, or the splits change
SCAN_BLOCK = 256  # pictures that are decoded before the next ones are read
ROW = np.dtype(
    [
        *(("shard", "<i4"), ("place", "<i8", 2), ("digest", "<u8")),
        *(("text_start", "<i8"), ("text_size", "<i8"), ("split", "i1"), ("aspect", "<f4")),
    ]
)


class Picture(NamedTuple):
    """A picture in a shard.

    name: unique in its shard.
    place: two numbers with which `Format.read` finds it again.
    content: its encoded bytes.
    caption: None if it cannot be used.
    problem: why there is no caption.
    """

    name: str
    place: tuple[int, int]
    content: bytes
    caption: str | None
    problem: str = "no caption"


class Format(NamedTuple):
    """A format of shards.

    name: of the data source.
    suffix: of its files, ".tar".
    pictures: shard -> its pictures, in the order of the file. Raises ValueError, naming the shard
        and the place in it, for a shard that is damaged.
    read: (shard, place) -> the encoded bytes of one picture. It is called in several threads.
    settings: whatever else the content of the index depends on.
    """

    name: str
    suffix: str
    pictures: Callable[[Path], Iterator[Picture]]
    read: Callable[[Path, tuple[int, int]], bytes]
    settings: tuple[str, ...] = ()


class Index(NamedTuple):
    """What a scan found, as it is on disk.

    shards: the files, relative to the folder.
    rows: ROW [N], one for each usable picture. Its aspect is width / height.
    texts: the file of all captions.
    skipped: (picture, reason).
    listed: the file that lists all of `skipped`.
    contents: {split: hash of its pictures and captions}.
    """

    shards: list[str]
    rows: np.ndarray
    texts: Path
    skipped: list[tuple[str, str]]
    listed: Path
    contents: dict[str, str]


def make_source(config, split: str, form: Format) -> source.Source:
    """Return one split of the shards in the folder `config.path`, at `config.resolution`.

    Raises FileNotFoundError if there is no such folder. Raises ValueError, saying what and where,
    if it has no shards or no such split, if a shard is damaged, and if more than the share
    `config.max_skipped` of the pictures was skipped. `read` raises ValueError, naming the shard, if
    a picture is not what it was.
    """
    folder = find_folder(config, form.name)
    index = _open_index(folder, form, int(config.resolution))
    max_skipped = float(getattr(config, "max_skipped", 0.1))
    scan_report.check_skipped(index.skipped, len(index.rows), folder, index.listed, max_skipped)
    rows = index.rows[index.rows["split"] == (SPLITS.index(split) if split in SPLITS else -1)]
    if not len(rows):
        raise no_examples(folder, split, [SPLITS[i] for i in np.unique(index.rows["split"])])
    captions = StoredTexts(index.texts, rows["text_start"], rows["text_size"])

    def reader(height: int, width: int):
        decode = _decoder(folder, index.shards, rows, form, height, width)
        return picture_reader(decode, len(rows), np.arange(len(rows)), height, width)

    sizes = buckets.sizes_of(config)
    empty = int((rows["text_size"] == 0).sum())
    listed, total = index.listed, len(index.rows)
    return source.Source(
        captions,
        reader(int(config.resolution), int(config.resolution)),
        fingerprint(form.name, config.resolution, split, index.contents[split], *sizes),
        scan_report.notes(index.skipped, listed, split, len(rows), empty, total),
        variants=dict.fromkeys(getattr(config, "augmentations", ()), captions),
        buckets=buckets.make_buckets(sizes, rows["aspect"], reader),
    )


def _open_index(folder: Path, form: Format, resolution: int) -> Index:
    """Return the index of the folder, or scan it if it has changed since the index was written."""
    shards = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob(f"*{form.suffix}")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not shards:
        raise ValueError(
            f"{folder} has no shards: {form.name} reads files that end in {form.suffix}"
        )
    folders = {shard.split("/")[0] for shard in shards if "/" in shard} & set(SPLITS)
    if outside := [shard for shard in shards if folders and shard.split("/")[0] not in folders]:
        raise ValueError(
            f"{folder / outside[0]} is outside of {'/, '.join(SPLITS)}/: move it into one of them"
        )
    status = [(folder / shard).stat() for shard in shards]
    states = [(each.st_size, each.st_mtime_ns) for each in status]
    home = data_dir() / form.name / fingerprint(os.fsencode(folder), *form.settings)[:16]
    path = home / fingerprint(INDEX_VERSION, shards, states)[:16]
    if not path.is_dir():
        with atomic_path(path) as part:
            _write_index(part, folder, shards, folders, form, resolution)
        for old in home.iterdir():
            if old != path and (old / "index.json").is_file():  # else it is being written
                shutil.rmtree(old, ignore_errors=True)
    head = json.loads((path / "index.json").read_text(encoding="utf-8"))
    skipped = [(name, reason) for name, reason in head["skipped"]]
    rows = np.load(path / "rows.npy")
    return Index(shards, rows, path / "captions", skipped, path / "skipped.txt", head["contents"])


def _write_index(
    part: Path, folder: Path, shards: list[str], folders: set[str], form: Format, resolution: int
) -> None:
    """Scan all shards and write the files of an `Index` to the new folder `part`.

    folders: the folders of splits that have shards.
    """
    part.mkdir()
    names, rows, skipped = [], [], []
    with open(part / "captions", "wb") as texts:
        for picture in _examined(folder, shards, form, resolution):
            name, shard, place, digest, aspect, caption, reason = picture
            if caption is None:
                skipped.append((name, reason))
                continue
            encoded = caption.encode()
            rows.append((shard, place, digest, texts.tell(), len(encoded), -1, aspect))
            names.append(name)
            texts.write(encoded)
    if not names and not skipped:
        raise ValueError(f"the shards in {folder} have no pictures")
    table, splits = np.array(rows, ROW), assign_splits(names, folders)
    table["split"] = [SPLITS.index(splits[name]) for name in names]
    np.save(part / "rows.npy", table)
    scan_report.write_skipped(part / "skipped.txt", skipped)
    contents = {
        split: _content_hash(table[table["split"] == number], part / "captions")
        for number, split in enumerate(SPLITS)
    }
    head = {"folder": str(folder), "skipped": skipped, "contents": contents}
    (part / "index.json").write_text(json.dumps(head), encoding="utf-8")


def _examined(folder: Path, shards: list[str], form: Format, resolution: int):
    """Yield (name, shard, place, digest, aspect, caption or None, reason) of every picture."""

    def examine(picture: Picture):
        caption, reason, aspect = picture.caption, picture.problem, 1.0
        if caption is not None:
            try:
                width, height = pictures.open_rgb(picture.content, 2 * resolution).size
                aspect = width / height
            except ValueError as error:
                caption, reason = None, str(error)
        return _digest(picture.content), aspect, caption, reason

    with (
        ThreadPoolExecutor(num_threads()) as pool,
        tqdm(desc=f"scanning {folder}", unit=" pictures", disable=None) as bar,
    ):
        for number, shard in enumerate(shards):
            found = form.pictures(folder / shard)
            while block := list(itertools.islice(found, SCAN_BLOCK)):
                for picture, result in zip(block, pool.map(examine, block), strict=True):
                    yield f"{shard}/{picture.name}", number, picture.place, *result
                bar.update(len(block))


def _decoder(
    folder: Path, shards: list[str], rows: np.ndarray, form: Format, height: int, width: int
):
    """Return row -> pixels of the picture rows[row]."""

    def decode(row: int) -> np.ndarray:
        shard, place = folder / shards[rows["shard"][row]], rows["place"][row]
        try:
            content = form.read(shard, (int(place[0]), int(place[1])))
            if _digest(content) != rows["digest"][row]:
                raise ValueError(
                    "it is not the picture that was scanned; start again to scan the folder anew"
                )
            return pictures.fit(pictures.open_rgb(content, 2 * max(height, width)), height, width)
        except (OSError, ValueError, IndexError) as error:
            raise ValueError(f"a picture of {shard} cannot be read any more: {error}") from error

    return decode


def _digest(content: bytes) -> int:
    """Return the first 64 bits of the sha256 of a picture's bytes."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")


def _content_hash(rows: Any, texts: Path) -> str:
    """Return the hash of all pictures and captions of these rows, in their order."""
    captions = StoredTexts(texts, rows["text_start"], rows["text_size"])
    digest = hashlib.sha256(rows["digest"].tobytes() + rows["text_size"].tobytes())
    for caption in captions:
        digest.update(caption.encode())
    return digest.hexdigest()
