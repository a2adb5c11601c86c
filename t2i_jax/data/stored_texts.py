"""Many texts in one file, as a sequence that reads each one when it is asked for."""

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Int64


class StoredTexts(Sequence[str]):
    """The texts of a file: `texts[i]` is read from disk, `texts[i:j]` is a list.

    path: a file of UTF-8 texts.
    starts, sizes: where each text is in it, in bytes.
    """

    def __init__(self, path: Path, starts: Int64[np.ndarray, "N"], sizes: Int64[np.ndarray, "N"]):
        self._starts, self._sizes = np.ascontiguousarray(starts), np.ascontiguousarray(sizes)
        # An empty file cannot be mapped into memory.
        self._bytes = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, "u1")

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = operator.index(index)
        start, size = self._starts[place], self._sizes[place]  # IndexError if there is none
        return self._bytes[start : start + size].tobytes().decode()
