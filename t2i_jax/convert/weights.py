"""A file of named arrays, as other libraries publish them, and whether it fits a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes  # noqa: F401 (numpy knows bfloat16 by this, and then safetensors reads it)
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from t2i_jax.convert import torch_file


class Named(dict):
    """Arrays by their published names. Asked for a name that is not there, it raises a ValueError that says so."""

    def __init__(self, arrays: Mapping[str, np.ndarray], source: str):
        super().__init__(arrays)
        self.source = source

    def __missing__(self, name):
        some = ", ".join(sorted(self)[:3])
        raise ValueError(f"{self.source} has no {name!r}: it is of another network (it has {len(self)} arrays: {some}, ...)")


def read(path) -> Named:
    """The arrays of a `.safetensors` file, or of one that torch.save wrote (`.pth`, `.pt`, `.bin`), by name.

    Raises FileNotFoundError where there is none; says no more than that, since only the caller knows what it should be.
    Raises ValueError for one that is damaged.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    try:
        return Named(load_file(file) if file.suffix == ".safetensors" else torch_file.load(file), str(file))
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}") from None


def fit(params: Any, network: Any, source: str) -> Any:
    """`params` as float32, if names and shapes are those of `network` (the same tree, of anything with a shape).

    Raises ValueError naming the first array that does not fit.
    """
    found, wanted = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (params, network))
    for path in [*wanted, *found]:
        shapes = [tuple(tree[path].shape) if path in tree else None for tree in (found, wanted)]
        if shapes[0] != shapes[1]:
            has, wants = ("none" if shape is None else f"one of shape {shape}" for shape in shapes)
            raise ValueError(f"{source} does not fit: of {jax.tree_util.keystr(path)} it has {has}, the network {wants}")
    return jax.tree.map(lambda a: np.asarray(a, np.float32), params)
