"""Is a picture of `shapes` clean? The objects read from it are drawn again, and must look alike.

Reading a picture (alignment.py) forgives: faint objects, specks, a part of an object in another
colour, ragged edges, a tinted background. Here each of them is a difference between the picture and
the drawing. The bounds are between two things. True pictures differ by nothing at all. And the
smallest faults that a person sees at once (each is a test) differ by more.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from t2i_jax.data.render import SIZES, UNITS, draw

# A pixel is wrong if one of its three numbers differs by more levels than this: from the drawing,
# as where an edge is a third of a pixel off or more; or from all numbers between the least and the
# greatest around it in the drawing. So an edge that is less than a pixel off does not hide a green
# object at a third of its contrast, which differs by 50 levels.
MAX_LEVELS, MAX_LEVELS_BEYOND = 80, 40
# Share of the pixels that may be wrong: 8 px at 32 px. A third of the smallest ring has 11 px.
MAX_WRONG_SHARE = 8 / 32**2
# Mean over all pixels of how far they are beyond the numbers around them, in levels. It is for
# tints, which a person sees from about 8 levels on.
MAX_MEAN_LEVELS_BEYOND = 4.0


def is_clean(image: UInt8[np.ndarray, "R R 3"], seen: Sequence[tuple]) -> bool:
    """Return whether the objects seen in a picture, drawn again, give nearly the same picture.

    seen: (size, colour, shape, x, y) of each object, as `alignment.read_picture` returns them. An
        object of which something could not be read gives False.
    """
    if any(part is None for each in seen for part in each):
        return False
    picture = image.astype(np.float32)
    again = draw(fit_places(image, seen), len(image)).astype(np.float32)
    low, high = (of(again, (3, 3, 1)) for of in (ndimage.minimum_filter, ndimage.maximum_filter))
    beyond = np.maximum(np.maximum(low - picture, picture - high), 0).max(-1)
    wrong = (abs(picture - again).max(-1) > MAX_LEVELS) | (beyond > MAX_LEVELS_BEYOND)
    return bool(wrong.mean() <= MAX_WRONG_SHARE and beyond.mean() <= MAX_MEAN_LEVELS_BEYOND)


def fit_places(
    image: UInt8[np.ndarray, "R R 3"], seen: Sequence[tuple]
) -> list[tuple[str, str, str, int, int]]:
    """Return the objects (size, colour, shape, x, y) at the places that explain the picture best.

    Places are read as shares of the canvas; drawn objects are at whole numbers of 1/UNITS of it.
    Of the nearest one and its neighbours, that with the least squared difference is taken, one
    object after another. Objects are moved inside the canvas.
    """
    objects = [
        (size, colour, shape, _inside(size, x * UNITS), _inside(size, y * UNITS))
        for size, colour, shape, x, y in seen
    ]
    for i, (size, colour, shape, x, y) in enumerate(objects):

        def misfit(place, i=i, words=(size, colour, shape)):
            drawing = draw([*objects[:i], (*words, *place), *objects[i + 1 :]], len(image))
            return float(((image.astype(np.float32) - drawing) ** 2).sum())

        near = [
            (_inside(size, x + dx), _inside(size, y + dy)) for dy in (0, -1, 1) for dx in (0, -1, 1)
        ]
        objects[i] = (size, colour, shape, *min(near, key=misfit))
    return objects


def _inside(size, place) -> int:
    """Return the nearest whole number at which an object of this size is inside the canvas."""
    low = int(np.ceil(SIZES[size] * UNITS / 2))
    return min(max(round(place), low), UNITS - low)
