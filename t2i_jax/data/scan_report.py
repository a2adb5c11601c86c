"""What a scan of pictures tells the user: what was skipped, and which splits are too small."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

Skipped = Sequence[tuple[str, str]]  # (picture, reason)
FEW = 10  # examples of a split on which little can be measured
NUM_SHOWN = 10  # skipped pictures that are shown; a file lists all of them


def check_skipped(skipped: Skipped, left: int, place: Path, listed: Path, max_skipped: float):
    """Raise ValueError if nothing is left, or more than the share `max_skipped` was skipped.

    left: how many pictures can be used.   listed: the file that lists all of `skipped`.
    """
    total = len(skipped) + left
    if not left or len(skipped) > max_skipped * total:
        raise ValueError(
            f"{len(skipped)} of {total} pictures in {place} cannot be used, more than "
            f"max_skipped={max_skipped:g} allows; all of them are listed in {listed}, the first "
            "are\n" + "\n".join(first_of(skipped))
        )


def notes(skipped: Skipped, listed: Path, split: str, size: int, empty: int, total: int):
    """Return the lines to show the user.

    listed: the file that lists all of `skipped`.
    size, empty: how many examples `split` has, and how many of their captions are empty.
    total: how many examples all splits have.
    """
    lines = []
    if skipped:
        lines = [f"{len(skipped)} pictures skipped, listed in {listed}:", *first_of(skipped)]
    if empty:
        lines.append(
            f"{empty} of {size} captions in {split} are empty: these examples are unconditional"
        )
    if split != "train" and size < FEW:
        lines.append(
            f"{split} has {size} of {total} examples, so what is measured on it says little: put "
            f"more into a folder {split}/"
        )
    return lines


def first_of(skipped: Skipped) -> list[str]:
    """Return a line for each of the first skipped pictures."""
    return [f"  {name}: {reason}" for name, reason in skipped[:NUM_SHOWN]]


def write_skipped(path: Path, skipped: Skipped) -> None:
    """List all skipped pictures in a text file."""
    write_lines(path, (f"{name}: {reason}" for name, reason in skipped))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file under a temporary name, then rename it: `path` is never half written."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)
    os.replace(temporary, path)
