"""Parameters by their published names, in both directions.

A file of this folder that describes a network has one function, `published(path) -> Published`: the
name and the layout of each of our parameters in the published file. Reading and writing follow from
it, so that they cannot disagree.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Path = tuple[str, ...]  # the keys to a parameter: ("down_0", "conv_in", "kernel")


class Published(NamedTuple):
    """Where a parameter is in a published file.

    name: of the array.
    layout: of LAYOUTS, how its numbers are ordered there.
    """

    name: str
    layout: str


class Layout(NamedTuple):
    """How an array is turned from the published order to ours, and back."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


LAYOUTS = {
    "same": Layout(lambda a: a, lambda a: a),
    # [outputs, inputs] and [inputs, outputs]
    "linear": Layout(np.transpose, np.transpose),
    # [outputs, inputs, H, W] and [H, W, inputs, outputs]
    "conv": Layout(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)),
    # [outputs, inputs, 1, 1], a convolution that we compute as a product, and [inputs, outputs]
    "pointwise": Layout(lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None]),
}


def read_params(
    arrays: Mapping[str, np.ndarray],
    shapes: Any,
    published: Callable[[Path], Published],
    source: str,
    ignored: Callable[[str], bool] = lambda name: False,
    dtype: Any = None,
) -> Any:
    """Return parameters of the tree `shapes` from published arrays. Each array is used once.

    arrays: by published name. Each is read when its turn comes, so a mapping that opens a file
        holds one array at a time.
    shapes: the parameters of our network: nested dicts of anything with a shape and a dtype.
    source: where the arrays come from, for messages.
    ignored: whether an array of this name may be left over (a constant that we compute).
    dtype: of the result; None for the dtypes of `shapes`.

    Raises ValueError that lists what is missing, what is left over, or what has another shape.
    """
    places = jax.tree_util.tree_map_with_path(lambda path, _: published(_keys(path)), shapes)
    wanted = {place.name for place in jax.tree.leaves(places, is_leaf=_is_place)}
    missing = sorted(wanted - set(arrays))
    unused = sorted(name for name in set(arrays) - wanted if not ignored(name))
    if missing or unused:
        raise ValueError(
            f"{source} is of another network: {_some('missing', missing)}"
            f"{'; ' if missing and unused else ''}{_some('not used', unused)}"
        )

    def read(shape, place):
        array = LAYOUTS[place.layout].to_ours(arrays[place.name])
        if array.shape != tuple(shape.shape):
            raise ValueError(
                f"{source} does not fit: {place.name} is {[*array.shape]} in our order, the "
                f"network has {[*shape.shape]}"
            )
        return np.asarray(array, dtype or shape.dtype)

    return jax.tree.map(read, shapes, places)


def write_arrays(params: Any, published: Callable[[Path], Published]) -> dict[str, np.ndarray]:
    """Return published arrays by name: the inverse of `read_params`.

    They are views of the parameters where these are in the memory of the host.
    """
    arrays = {}
    for path, array in jax.tree_util.tree_leaves_with_path(params):
        name, layout = published(_keys(path))
        if name in arrays:
            raise ValueError(f"two parameters have the published name {name}")
        arrays[name] = LAYOUTS[layout].to_theirs(np.asarray(array))
    return arrays


def _keys(path) -> Path:
    return tuple(str(entry.key) for entry in path)


def _is_place(x) -> bool:
    return isinstance(x, Published)


def _some(what: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:5])
    return f"{len(names)} {what} ({shown}{', ...' if len(names) > 5 else ''})"
