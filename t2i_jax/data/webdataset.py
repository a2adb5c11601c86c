"""`webdataset`: shards of captioned pictures in tar files, as img2dataset writes them.

`config.path` is a folder of *.tar files, searched with its subfolders. A shard holds, for each KEY,

    KEY.jpg     the picture, or KEY.png, KEY.webp, ...
    KEY.txt     its caption in UTF-8
    KEY.json    instead of KEY.txt: an object with the caption as "caption"

Splits, the index, and what is skipped or refused: see data/shards.py.
"""

import json
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path

from t2i_jax.core import source
from t2i_jax.core.fields import Field
from t2i_jax.data import pictures, shards
from t2i_jax.data.folder import folder_fields


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.data` for webdataset."""
    del config
    return folder_fields("tar files")


def make(config, split: str) -> source.Source:
    """Return the pictures of the tar files in `config.path` at `config.resolution`.

    Raises what `shards.make_source` raises.
    """
    form = shards.Format("webdataset", ".tar", list_pictures, read_picture)
    return shards.make_source(config, split, form)


def list_pictures(shard: Path) -> Iterator[shards.Picture]:
    """Yield the pictures of a tar file; the place of one is its offset and size, in bytes.

    Raises ValueError, naming the last good member, if the file is cut short or damaged.
    """
    members = _members(shard)
    with open(shard, "rb") as file:

        def content(place: tuple[int, int]) -> bytes:
            file.seek(place[0])
            return file.read(place[1])

        for name, place in members.items():
            key, suffix = _split_name(name)
            if suffix.lower() not in pictures.SUFFIXES:
                continue
            beside = next((key + end for end in (".txt", ".json") if key + end in members), "")
            caption, problem = None, "no caption"
            if beside:
                try:
                    caption = _caption(beside, content(members[beside]))
                except ValueError as error:
                    problem = str(error)
            yield shards.Picture(name, place, content(place), caption, problem)


def read_picture(shard: Path, place: tuple[int, int]) -> bytes:
    """Return the encoded bytes of the picture at place (offset, size) of a tar file."""
    with open(shard, "rb") as file:
        file.seek(place[0])
        return file.read(place[1])


def _members(shard: Path) -> dict[str, tuple[int, int]]:
    """Return {name: (offset, size)} of all files in a tar file, in its order."""
    found, last, length = {}, "the first member", shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                last = member.name
                if member.isfile():
                    found[member.name] = (member.offset_data, member.size)
            end = archive.offset
    except tarfile.TarError as error:
        raise _damaged(shard, last, error) from error
    # tarfile takes a file that ends early, or that goes on with garbage, for complete.
    with open(shard, "rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE) or end > length:
            raise _damaged(shard, last, "it does not end as a tar file ends")
    return found


def _damaged(shard: Path, last: str, reason) -> ValueError:
    return ValueError(
        f"{shard} is cut short or damaged at or after {last} ({reason}): write or download it "
        "again as an uncompressed tar file, or move it away"
    )


def _caption(name: str, content: bytes) -> str:
    """Return the caption in a .txt or .json member. Raises ValueError if it has none."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 ({error.reason})") from error
    if name.endswith(".txt"):
        return text.strip()
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON ({error})") from error
    if not isinstance(value, dict) or "caption" not in value:
        raise ValueError(f'{name} has no "caption"')
    caption = "" if value["caption"] is None else value["caption"]
    if not isinstance(caption, str) or any("\ud800" <= c <= "\udfff" for c in caption):
        raise ValueError(f'{name}: "caption" needs to be text, got {caption!r:.80}')
    return caption.strip()


def _split_name(name: str) -> tuple[str, str]:
    """Split at the first dot of the file's name: "a/0.b.jpg" is ("a/0", ".b.jpg")."""
    folder, base = posixpath.split(name)
    key, dot, rest = base.partition(".")
    return posixpath.join(folder, key), dot + rest
