"""The contract of a first stage: pictures as codes or latents, and back."""

from collections.abc import Callable
from typing import NamedTuple


class Codes(NamedTuple):
    """Pictures as tokens of a vocabulary, in row order over a grid.

    All functions but `fit` are pure. `frozen` is what `fit` returns.

    grid: (rows, columns).
    size: number of codes in the vocabulary.
    channels: D, how many numbers the vector of a code has.
    encode: (frozen, pictures uint8 [B, H, W, 3]) -> codes int32 [B, rows * columns].
    decode: (frozen, codes int [B, rows * columns]) -> pictures uint8 [B, H, W, 3].
    vectors: (frozen) -> float32 [size, D], the vector of each code.
    fit: (source, read_run) -> frozen, as `Family.make_frozen`: a nested dict of NumPy arrays.
    parts: of codes that are made of two parts, how many values each has, (P, M): a code is
        first * M + second, and size is P * M. A family may learn them one after the other.
    scales: of multi-scale codes, the sides of square grids, coarse to fine. The tokens are those of
        one grid after another: codes are int32 [B, N], with N the number of cells of all grids.
    coarse: of multi-scale codes, (frozen, codes) -> float32 [B, N, D]: for each cell, the picture
        as all coarser grids describe it.
    """

    grid: tuple[int, int]
    size: int
    channels: int
    encode: Callable
    decode: Callable
    vectors: Callable
    fit: Callable
    parts: tuple[int, ...] = ()
    scales: tuple[int, ...] = ()
    coarse: Callable | None = None


class Latents(NamedTuple):
    """Pictures as arrays of numbers, of mean 0 and standard deviation about 1.

    shape: (rows, columns, channels) of the array of one picture.
    encode: (frozen, pictures uint8 [B, H, W, 3]) -> latents float32 [B, *shape].
    decode: (frozen, latents [B, *shape]) -> pictures uint8 [B, H, W, 3].
    fit: (source, read_run) -> frozen, as `Family.make_frozen`; {} if nothing has to be fitted.
    """

    shape: tuple[int, int, int]
    encode: Callable
    decode: Callable
    fit: Callable
