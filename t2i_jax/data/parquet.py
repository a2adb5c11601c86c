"""`parquet`: captioned pictures in parquet files, as data sets of Hugging Face have them.

`config.path` is a folder of *.parquet files, searched with its subfolders. Each row is an example:

    config.image_column      the encoded picture: bytes, or a struct with the field "bytes"
    config.caption_column    its caption; null is an empty caption

Splits, the index, and what is skipped or refused: see data/shards.py. Names such as
train-00000-of-00002.parquet say nothing about splits: move such files into train/.

A picture is read with all others of its row group, and the last few row groups are kept in memory.
This is quick for small row groups (Hugging Face writes 100 rows) or for files that fit in memory
together. Tar files (data/webdataset.py) are quick at any size. Needs pyarrow.
"""

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

from t2i_jax.core import source
from t2i_jax.core.fields import Field
from t2i_jax.data import shards
from t2i_jax.data.folder import folder_fields

ROW_GROUPS_KEPT = 16
ROWS_AT_ONCE = 64  # in a scan


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.data` for parquet."""
    del config
    return {
        **folder_fields("parquet files"),
        "image_column": Field("image", "the column of encoded pictures"),
        "caption_column": Field("text", "the column of captions"),
    }


def make(config, split: str) -> source.Source:
    """Return the pictures of the parquet files in `config.path` at `config.resolution`.

    Raises what `shards.make_source` raises. Raises ValueError, naming the columns that there are,
    for a file without these columns. Raises RuntimeError if pyarrow is not installed.
    """
    _pyarrow()
    image = getattr(config, "image_column", "image")
    caption = getattr(config, "caption_column", "text")
    form = shards.Format(
        "parquet",
        ".parquet",
        functools.partial(list_pictures, image_column=image, caption_column=caption),
        functools.partial(read_picture, image_column=image),
        settings=(image, caption),
    )
    return shards.make_source(config, split, form)


def list_pictures(shard: Path, image_column: str, caption_column: str) -> Iterator[shards.Picture]:
    """Yield the pictures of a parquet file; the place of one is its row group and its row in it.

    Raises ValueError, naming the file, if it is damaged or has other columns.
    """
    number, columns = 0, [image_column, caption_column]
    file = _open(shard, image_column, caption_column)
    for group in range(file.num_row_groups):
        rows = itertools.chain.from_iterable(_row_lists(shard, file, group, columns))
        for row, (image, caption) in enumerate(rows):
            content = image["bytes"] if isinstance(image, dict) else image
            text, problem = (caption or "").strip(), "no caption"
            if content is None:
                text, problem = None, "no picture in this row"
            yield shards.Picture(str(number), (group, row), content or b"", text, problem)
            number += 1


def _row_lists(shard, file, group, columns):
    """Yield the rows of a row group in lists. Raises ValueError, naming it, if it is damaged."""
    try:
        for batch in file.iter_batches(ROWS_AT_ONCE, [group], columns, use_threads=False):
            yield list(zip(*(batch[name].to_pylist() for name in columns), strict=True))
    except (OSError, ValueError) as error:  # pyarrow's own are of these kinds
        raise ValueError(f"{shard}: row group {group} is damaged: {error}") from error


def read_picture(shard: Path, place: tuple[int, int], image_column: str) -> bytes:
    """Return the encoded bytes of the picture at place (row group, row) of a parquet file.

    Raises ValueError if the file cannot be read any more.
    """
    group, row = place
    value = _row_group(shard, group, image_column)[row].as_py()
    return (value["bytes"] if isinstance(value, dict) else value) or b""


@functools.lru_cache(maxsize=ROW_GROUPS_KEPT)
def _row_group(shard, group, image_column):
    """Return the pictures of one row group, still encoded."""
    file = _open(shard, image_column)
    return file.read_row_group(group, [image_column], use_threads=False).column(0)


def _open(shard: Path, image_column: str, caption_column: str = ""):
    """Return a parquet file with these columns. Raises ValueError, naming the file."""
    arrow = _pyarrow()
    try:
        file = arrow.parquet.ParquetFile(shard)
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{shard} is damaged or no parquet file: {error}") from error
    types = {field.name: field.type for field in file.schema_arrow}
    for setting, name in (("image_column", image_column), ("caption_column", caption_column)):
        if name and name not in types:
            raise ValueError(
                f"{shard} has no column {name!r} (config.data.{setting}): it has "
                f"{', '.join(map(repr, types))}"
            )
    image = types[image_column]
    if arrow.types.is_struct(image) and image.get_field_index("bytes") >= 0:
        image = image.field("bytes").type
    if not (arrow.types.is_binary(image) or arrow.types.is_large_binary(image)):
        raise ValueError(
            f"{shard}: {image_column!r} is a column of {image}, and needs to be one of bytes, or "
            "of structs with the field bytes"
        )
    if caption_column:
        caption = types[caption_column]
        if not (arrow.types.is_string(caption) or arrow.types.is_large_string(caption)):
            raise ValueError(
                f"{shard}: {caption_column!r} is a column of {caption}, and needs to be one of text"
            )
    return file


def _pyarrow():
    """Return pyarrow. Raises RuntimeError, saying how to install it, if it is not there."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise RuntimeError("parquet needs pyarrow: pip install pyarrow") from error
    return pyarrow
