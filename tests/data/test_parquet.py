"""Parquet files: every caption and pixel is checked, and every wrong column is named."""

import sys
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from t2i_jax.data import loader, parquet, picture_reader
from tests.data.write_shards import encoded, everything

pytestmark = pytest.mark.usefixtures("data_dir")


@pytest.fixture(autouse=True)
def no_row_groups():
    parquet._row_group.cache_clear()


def config(top, **more):
    return SimpleNamespace(path=str(top), resolution=8, **more)


def write(path, rows, images="image", captions="text", group=7):
    """Write [(picture, caption)] with a column that is not used."""
    path.parent.mkdir(exist_ok=True)
    pictures, said = zip(*rows, strict=True)
    table = pyarrow.table({"id": range(len(rows)), images: pictures, captions: said})
    pyarrow.parquet.write_table(table, path, row_group_size=group)


def numbered(values):
    return [(encoded(i), f"number {i}") for i in values]


def as_structs(rows):
    return [({"bytes": content, "path": "x.png"}, text) for content, text in rows]


@pytest.mark.parametrize("change", [list, as_structs])
def test_captions_belong_to_their_pictures(top, change):
    write(top / "0.parquet", change(numbered(range(20))))
    write(top / "more" / "1.parquet", change(numbered(range(20, 200))), group=100)
    expected = {f"number {i}": i for i in range(200)}
    assert everything(parquet.make, config(top)) == expected


def test_columns_of_other_names(top):
    write(top / "0.parquet", numbered(range(9)), "jpg", "caption")
    found = everything(parquet.make, config(top, image_column="jpg", caption_column="caption"))
    assert found == {f"number {i}": i for i in range(9)}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image_column": "jpg"},
            r"no column 'jpg' .*image_column\): it has 'id', 'image', 'text'$",
        ),
        (
            {"caption_column": "said"},
            r"no column 'said' .*caption_column\): it has 'id', 'image', 'text'$",
        ),
        ({"image_column": "id"}, r"'id' is a column of int64, and needs to be one of bytes"),
        ({"caption_column": "id"}, r"'id' is a column of int64, and needs to be one of text"),
    ],
)
def test_a_wrong_column_is_named_with_those_that_there_are(top, columns, message):
    write(top / "0.parquet", numbered(range(9)))
    with pytest.raises(ValueError, match=rf"0\.parquet.*{message}"):
        parquet.make(config(top, **columns), "train")


def test_rows_without_a_picture_are_skipped_and_null_is_an_empty_caption(top):
    rows = [*numbered(range(30)), (None, "nothing"), (b"no picture", "broken"), (encoded(77), None)]
    write(top / "train" / "0.parquet", rows)
    for split in ("validation", "test"):
        write(top / split / "0.parquet", numbered(range(30, 40)))
    source = parquet.make(config(top), "train")
    assert list(source.captions) == [*(f"number {i}" for i in range(30)), ""]
    assert source.read(np.array([30]))[0, 0, 0, 0] == 77
    assert source.notes[0].startswith("2 pictures skipped")
    assert source.notes[1] == "  train/0.parquet/30: no picture in this row"
    assert source.notes[2].startswith("  train/0.parquet/31: not a readable picture")


def test_random_access_needs_no_memory_of_what_came_before(top, monkeypatch):
    write(top / "0.parquet", numbered(range(250)), group=3)
    monkeypatch.setattr(picture_reader, "CACHE_BYTES", 0)
    source = parquet.make(config(top), "train")
    for batch in loader.batches(source, {}, 16, 1, 40, 60, reader="threads"):
        said = [int(source.captions[i].split()[1]) for i in batch["index"]]
        assert batch["image"][:, 0, 0, 0].tolist() == said


def test_a_damaged_file_is_named(top):
    write(top / "0.parquet", numbered(range(20)))
    content = (top / "0.parquet").read_bytes()
    (top / "0.parquet").write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"0\.parquet is damaged or no parquet file"):
        parquet.make(config(top), "train")


def test_a_damaged_row_group_is_named(top):
    write(top / "0.parquet", numbered(range(20)))
    content = bytearray((top / "0.parquet").read_bytes())
    group = pyarrow.parquet.ParquetFile(top / "0.parquet").metadata.row_group(1)
    start = group.column(1).data_page_offset
    content[start : start + 200] = b"\xff" * 200
    (top / "0.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"0\.parquet: row group 1 is damaged"):
        parquet.make(config(top), "train")


@pytest.mark.parametrize("left", [3, 20])
def test_a_file_that_changes_later_is_named(top, monkeypatch, left):
    write(top / "0.parquet", numbered(range(20)))
    monkeypatch.setattr(picture_reader, "CACHE_BYTES", 0)
    source = parquet.make(config(top), "train")
    write(top / "0.parquet", numbered(range(60, 60 + left)))
    with pytest.raises(ValueError, match=r"a picture of .*0\.parquet cannot be read any more"):
        source.read(np.array([len(source.captions) - 1]))


def test_without_pyarrow(top, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RuntimeError, match=r"^parquet needs pyarrow: pip install pyarrow$"):
        parquet.make(config(top), "train")
