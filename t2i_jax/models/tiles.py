"""Large pictures in overlapping tiles, so that a network needs the memory of one tile."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from t2i_jax.core.types import AnyArray


def in_tiles(
    network: Callable,
    x: Float[AnyArray, "B H W C"],
    tile: int,
    overlap: int,
    inner: int = 1,
    outer: int = 1,
) -> Float[Array, "B H2 W2 D"]:
    """Apply a network to tiles of x one after another, and join the results.

    network: float [B, h, w, C] -> float [B, h outer / inner, w outer / inner, D]. All tiles have
        one shape, so it is compiled once.
    tile: side of a tile, in cells; a side of x that is shorter is one tile.
    overlap: cells that neighbours share at least. There, weights go in a straight line from one
        tile to the next.
    inner, outer: sides of a cell in x, and in the result.

    What a network computes of its whole input (statistics of a norm, attention) is that of a tile
    here. So the result is near to that for the whole x, and equal where a cell of the result
    depends on its own cell alone.
    Raises ValueError if neighbours would share no cell, or half of a tile or more.
    """
    if not 0 < 2 * overlap < tile:
        raise ValueError(
            f"tiles of {tile} cells cannot share {overlap}: it must be 1 or more, less than half"
        )
    batch, height, width, _ = x.shape
    cells = height // inner, width // inner
    shape = tuple(min(tile, side) for side in cells)
    starts = [starts_of(side, length, overlap) for side, length in zip(cells, shape, strict=True)]
    down, across = (
        jnp.asarray(weights_of(side * outer, start * outer, length * outer, overlap * outer))
        for side, start, length in zip(cells, starts, shape, strict=True)
    )
    sides = [length * inner for length in shape]

    def add_tile(i, sums):
        row, column = i // len(across), i % len(across)
        top, left = jnp.asarray(starts[0])[row], jnp.asarray(starts[1])[column]
        corner = (0, top * inner, left * inner, 0)
        found = network(jax.lax.dynamic_slice(x, corner, (batch, *sides, x.shape[3])))
        found = found * (down[row][:, None] * across[column])[:, :, None]
        corner = (0, top * outer, left * outer, 0)
        before = jax.lax.dynamic_slice(sums, corner, found.shape)
        return jax.lax.dynamic_update_slice(sums, before + found, corner)

    result = jax.eval_shape(network, jax.ShapeDtypeStruct((batch, *sides, x.shape[3]), x.dtype))
    sums = jnp.zeros((batch, *(side * outer for side in cells), result.shape[3]), result.dtype)
    return jax.lax.fori_loop(0, len(down) * len(across), add_tile, sums)


def starts_of(side: int, tile: int, overlap: int) -> np.ndarray:
    """Return where the tiles of a side start, int32 [N]: evenly, from 0 to side - tile."""
    count = 1 if side == tile else 1 + math.ceil((side - tile) / (tile - overlap))
    return np.round(np.linspace(0, side - tile, count)).astype(np.int32)


def weights_of(side: int, starts: np.ndarray, tile: int, overlap: int) -> np.ndarray:
    """Return the weights of the cells of each tile, float32 [N, tile].

    At each of `side` cells, the weights of all tiles there have the sum 1. They rise from 0 over
    `overlap` cells, and fall over as many, but for the ends of the side.
    """
    place = np.arange(tile)
    rise, fall = (np.clip(x / overlap, 0, 1) for x in (place, tile - place))
    weights = np.array(
        [
            (rise if start > 0 else 1.0) * (fall if start + tile < side else np.ones(tile))
            for start in starts
        ]
    )
    sums = np.zeros(side)
    for start, weight in zip(starts, weights, strict=True):
        sums[start : start + tile] += weight
    return np.array(
        [w / sums[s : s + tile] for s, w in zip(starts, weights, strict=True)], np.float32
    )
