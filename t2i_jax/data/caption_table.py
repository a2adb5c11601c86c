"""Captions in one file: .jsonl or .csv, a row for each caption.

A row has the name of a picture under one of FILE_KEYS and its caption under one of TEXT_KEYS, as
in data sets of Hugging Face. Files are UTF-8.
"""

import csv
import io
import json
import posixpath
from collections.abc import Iterator
from pathlib import Path

FILE_NAMES = ("captions.jsonl", "metadata.jsonl", "captions.csv", "metadata.csv")
FILE_KEYS, TEXT_KEYS = ("file_name", "image", "file"), ("text", "caption")


def read_table(path: Path) -> list[tuple[str, str]]:
    """Return the (file, caption) rows of a .jsonl or .csv file, in its order.

    A caption that is null becomes "". Raises ValueError, naming file and line, for a wrong row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 ({error.reason})") from error
    rows = (_json_rows if path.suffix == ".jsonl" else _csv_rows)(path, text)
    return [_parse_row(path, line, row) for line, row in rows]


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    """Yield (line number, row)."""
    for line, row in enumerate(text.split("\n"), 1):
        if row.strip():
            try:
                yield line, json.loads(row)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {line}: not JSON ({error})") from error


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    """Yield (line number, row)."""
    lines = csv.DictReader(io.StringIO(text), strict=True)
    try:
        for row in lines:
            if None in row or None in row.values():
                raise ValueError(
                    f"{path}, line {lines.line_num}: needs {len(lines.fieldnames or ())} columns, "
                    f"as in line 1"
                )
            yield lines.line_num, row
    except csv.Error as error:  # the number is of the line before the wrong row
        raise ValueError(f"{path}, line {lines.line_num + 1}: not CSV ({error})") from error


def _parse_row(path: Path, line: int, row) -> tuple[str, str]:
    """Return (file, caption) of one row. `path` and `line` are for error messages."""
    if not isinstance(row, dict):
        raise ValueError(
            f"{path}, line {line}: needs an object with file_name and text, got {row!r:.80}"
        )
    values = []
    for keys in (FILE_KEYS, TEXT_KEYS):
        key = next((key for key in keys if key in row), None)
        if key is None:
            raise ValueError(
                f"{path}, line {line}: needs {' or '.join(keys)}, has {', '.join(map(str, row))}"
            )
        value = "" if keys is TEXT_KEYS and row[key] is None else row[key]
        if not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError(f"{path}, line {line}: {key} needs to be text, got {value!r:.80}")
        values.append(value)
    return posixpath.normpath(values[0]), values[1].strip()
