"""What is hidden of a picture of `shapes`, so that a model has to draw it again."""

import numpy as np
from jaxtyping import Bool

BORDER_PX = 1  # around the pixels that are at least half covered, where the edge is blended


def box_around(mask: Bool[np.ndarray, "R R"], cell: int) -> Bool[np.ndarray, "R R"]:
    """Return the rectangle around an object and its border, grown to a grid of `cell` pixels.

    Raises ValueError for an empty mask.
    """
    if not mask.any():
        raise ValueError("the mask of the object is empty: there is nothing to hide")
    box = np.zeros_like(mask)
    places = []
    for axis in (1, 0):
        covered = np.flatnonzero(mask.any(axis))
        first = max(covered[0] - BORDER_PX, 0) // cell * cell
        last = -(-min(covered[-1] + 1 + BORDER_PX, len(mask)) // cell) * cell
        places.append(slice(first, last))
    box[tuple(places)] = True
    return box
