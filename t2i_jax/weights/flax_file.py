"""Read the `.msgpack` files that diffusers wrote while it had models in Flax.

Such a file is a tree of arrays, in Flax's layout. No code is stored in it.
"""

import re
from pathlib import Path

import numpy as np
from flax import serialization, traverse_util

from t2i_jax.weights.published import LAYOUTS

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


def load(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by the names, and in the order, of diffusers' PyTorch models.

    `encoder/down_blocks_0/conv1/kernel` becomes `encoder.down_blocks.0.conv1.weight`.
    Raises ValueError for a damaged file, or one that is no tree of arrays.
    """
    try:
        tree = serialization.msgpack_restore(Path(path).read_bytes())
        arrays = traverse_util.flatten_dict(tree)
        return {_name(keys): _published(keys[-1], array) for keys, array in arrays.items()}
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        raise ValueError(f"{path} is damaged, or no tree of arrays: {error}") from None


def _name(keys) -> str:
    *modules, leaf = keys
    return ".".join([*(re.sub(r"_(\d+)$", r".\1", name) for name in modules), LEAVES[leaf]])


def _published(leaf: str, array) -> np.ndarray:
    array = np.asarray(array)
    if leaf != "kernel":
        return array
    return LAYOUTS["conv" if array.ndim == 4 else "linear"].to_theirs(array)
