"""Arrays under other names, each computed from a stored one when it is asked for."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np


class Source(NamedTuple):
    """Where an array comes from.

    name: of the stored array.
    change: what is done to it.
    """

    name: str
    change: Callable[[np.ndarray], np.ndarray] = lambda array: array


class DerivedArrays(Mapping[str, np.ndarray]):
    """A mapping from the keys of `sources` to what becomes of `arrays`. It holds no array.

    arrays: the stored arrays by name.
    sources: for each name, where its array comes from.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], sources: Mapping[str, Source]):
        self.arrays, self.sources = arrays, dict(sources)

    def __getitem__(self, name: str) -> np.ndarray:
        stored, change = self.sources[name]
        return change(self.arrays[stored])

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)


def renamed(
    arrays: Mapping[str, np.ndarray], rename: Callable[[str], str]
) -> Mapping[str, np.ndarray]:
    """Return the arrays under the names `rename(name)`.

    Raises ValueError if two of them get one name.
    """
    sources: dict[str, Source] = {}
    for name in arrays:
        new = rename(name)
        if new in sources:
            raise ValueError(f"{sources[new].name} and {name} are both {new}")
        sources[new] = Source(name)
    return DerivedArrays(arrays, sources)
