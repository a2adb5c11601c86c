"""Draw the scenes of `shapes`: flat, anti-aliased coloured shapes on a dark canvas.

A shape is described in its own unit square: the longer side of its bounding box is 1 and the box is
centred at 0, with x to the right and y downwards. On the canvas, positions are whole numbers of
1/UNITS of the side. So a shape falls on few different sub-pixel offsets, and each of its coverage
patches is computed once.
"""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, UInt8

UNITS = 128  # positions are in 1/128 of the canvas: a quarter of a pixel at 32 px
BACKGROUND = (20, 20, 24)
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 210, 50),
    "purple": (150, 60, 190),
    "orange": (245, 140, 30),
    "cyan": (60, 200, 220),
    "white": (245, 245, 245),
}
# The longer side of the bounding box, as a part of the canvas.
SIZES = {"small": 0.25, "large": 0.38}
SUPERSAMPLE = 8  # an exact inside test at 8 x 8 points of each pixel


def _circle(x, y):
    return x**2 + y**2 <= 0.25


def _square(x, y):
    return np.maximum(abs(x), abs(y)) <= 0.5


def _triangle(x, y):
    """Equilateral, point up: 1 wide, sqrt(3)/2 high."""
    height = 3**0.5 / 2
    return (abs(x) <= (y + height / 2) / height / 2) & (y <= height / 2)


def _star(x, y):
    """Five points, the first one up.

    The box is as wide as the upper arms: 2 sin 72 degrees of the outer radius.
    """
    turn = 2 * np.pi / 5
    outer = 0.5 / np.sin(turn)
    inner = 0.42 * outer
    y = y - (outer - outer * np.cos(turn / 2)) / 2  # the star's centre is below that of the box
    angle, radius = np.arctan2(x, -y), np.hypot(x, y)
    # Fold every half arm onto one: its tip is at 0, its notch at 36 degrees.
    angle = abs((angle + turn / 2) % turn - turn / 2)
    u, v = radius * np.cos(angle), radius * np.sin(angle)
    notch_u, notch_v = inner * np.cos(turn / 2), inner * np.sin(turn / 2)
    return (outer - u) * notch_v >= (outer - notch_u) * v


def _cross(x, y):
    return (np.minimum(abs(x), abs(y)) <= 1 / 6) & _square(x, y)


def _ring(x, y):
    return _circle(x, y) & (x**2 + y**2 >= 0.28**2)


SHAPES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}


@lru_cache(maxsize=8192)
def coverage(
    shape: str, size: str, resolution: int, phase_x: int = 0, phase_y: int = 0
) -> Float[np.ndarray, "n n"]:
    """Return how much of each pixel a shape covers, in [0, 1].

    n = 2h + 1, where h = ceil(half its size in pixels). The centre of the shape is
    (phase_x, phase_y) / UNITS of a pixel right of and below the top left corner of the middle pixel
    [h, h]; phases are in [0, UNITS). The result is float32, cached and read-only.
    """
    side = SIZES[size] * resolution
    half = int(np.ceil(side / 2))
    points = (np.arange((2 * half + 1) * SUPERSAMPLE) + 0.5) / SUPERSAMPLE - half
    x, y = (points - phase_x / UNITS) / side, (points - phase_y / UNITS) / side
    inside = SHAPES[shape](x[None, :], y[:, None])
    patch = inside.reshape(2 * half + 1, SUPERSAMPLE, 2 * half + 1, SUPERSAMPLE)
    patch = patch.mean((1, 3), dtype=np.float32)
    patch.setflags(write=False)
    return patch


def draw(
    objects: Iterable[tuple[str, str, str, int, int]], resolution: int
) -> UInt8[np.ndarray, "R R 3"]:
    """Draw objects (size, colour, shape, x, y).

    x and y are the centre of the bounding box in 1/UNITS of the canvas, from the top left corner.
    Every object lies completely inside the canvas. Later objects cover earlier ones.
    """
    # One pixel more on every side, for the empty borders of the patches.
    canvas = np.full((resolution + 2, resolution + 2, 3), BACKGROUND, np.float32)
    for each in objects:
        patch, place = _patch(each, resolution)
        under = canvas[place]
        under += patch[:, :, None] * (np.asarray(COLOURS[each[1]], np.float32) - under)
    return np.rint(canvas[1:-1, 1:-1]).astype(np.uint8)


def mask(
    objects: Iterable[tuple[str, str, str, int, int]], resolution: int
) -> Bool[np.ndarray, "R R"]:
    """Return the pixels of which an object covers half or more. Objects are those of `draw`."""
    canvas = np.zeros((resolution + 2, resolution + 2), np.float32)
    for each in objects:
        patch, place = _patch(each, resolution)
        canvas[place] = np.maximum(canvas[place], patch)
    return canvas[1:-1, 1:-1] >= 0.5


def _patch(each, resolution) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Return how much of each pixel an object covers, and where on a canvas with a border of 1."""
    size, _, shape, x, y = each
    column, phase_x = divmod(x * resolution, UNITS)
    row, phase_y = divmod(y * resolution, UNITS)
    patch = coverage(shape, size, resolution, phase_x, phase_y)
    top, left, n = row - len(patch) // 2 + 1, column - len(patch) // 2 + 1, len(patch)
    return patch, (slice(top, top + n), slice(left, left + n))
