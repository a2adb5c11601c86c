"""A picture of any size enlarged in tiles, so that the device needs the memory of one tile."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Array, Key, UInt8
from PIL import Image

from t2i_jax.core.random import keys_at
from t2i_jax.models.tiles import starts_of

# Sides of a tile, and what it sees around the part that is kept of it; pixels of the small picture.
TILE_PX, MARGIN_PX = 192, 32


def upscale_each(
    run: Callable, pictures: Iterable[UInt8[np.ndarray, "h w 3"]], seed: int
) -> list[Image.Image]:
    """Return pictures of any sizes enlarged by the ability `run`, one after another.

    Picture i has the random key of (seed, i).
    """
    return [
        Image.fromarray(upscale_in_tiles(run, picture, keys_at(seed, np.array([i]))))
        for i, picture in enumerate(pictures)
    ]


def upscale_in_tiles(
    run: Callable,
    picture: UInt8[np.ndarray, "h w 3"],
    keys: Key[Array, "1"] | None = None,
    tile: int = TILE_PX,
    margin: int = MARGIN_PX,
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture enlarged by the ability `run` (runs/batches.py).

    Tiles overlap by 2 `margin` pixels, and each pixel of the result comes from a tile that shows at
    least `margin` pixels around it, or the border of the picture. So the result is that of the
    whole picture, if the network sees no further (EDSR with up to 13 blocks). The ability is told
    the "corner" at which a tile begins, row and column in the small picture. All tiles have one
    size, so that one program is compiled for all large pictures. A shorter side has a tile of the
    next power of 2, filled up with the pixels of its border.
    """
    height, width = picture.shape[:2]
    sides = [min(tile, 1 << (side - 1).bit_length()) for side in (height, width)]
    missing = [max(full - side, 0) for full, side in zip(sides, (height, width), strict=True)]
    padded = np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    rows, columns = (
        list(_pieces(length, side, 2 * margin))
        for length, side in zip(padded.shape, sides, strict=False)
    )
    result, scale = None, 1
    for top, above, below in rows:
        for left, before, after in columns:
            part = padded[top : top + sides[0], left : left + sides[1]]
            corner = np.array([[top, left]], np.int32)
            found = np.asarray(run({"image": part[None], "corner": corner}, keys, {}))[0]
            if result is None:
                scale = found.shape[0] // sides[0]
                shape = (padded.shape[0] * scale, padded.shape[1] * scale, 3)
                result = np.empty(shape, np.uint8)
            own = found[
                (above - top) * scale : (below - top) * scale,
                (before - left) * scale : (after - left) * scale,
            ]
            result[above * scale : below * scale, before * scale : after * scale] = own
    assert result is not None  # there is at least one tile
    return result[: height * scale, : width * scale]


def _pieces(length: int, tile: int, overlap: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start of a tile, start and end of the part that is kept of it) along a side.

    The kept parts meet in the middle of each overlap.
    """
    starts = starts_of(length, tile, overlap) if length > tile else np.zeros(1, int)
    middles = [int(a + tile + b) // 2 for a, b in itertools.pairwise(starts)]
    yield from zip(map(int, starts), [0, *middles], [*middles, length], strict=True)
