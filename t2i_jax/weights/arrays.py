"""Files of named arrays, as other libraries publish them, and whether they fit a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes  # noqa: F401 (adds bfloat16 to numpy, so that safetensors can read it)
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from t2i_jax.weights import flax_file, torch_file


class NamedArrays(dict[str, np.ndarray]):
    """Arrays by their published names.

    Raises ValueError, naming `source`, for a name that is missing.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], source: str):
        super().__init__(arrays)
        self.source = source

    def __missing__(self, name):
        some = ", ".join(sorted(self)[:3])
        raise ValueError(
            f"{self.source} has no {name!r}: it is of another network "
            f"(it has {len(self)} arrays: {some}, ...)"
        )


def read(path: str | Path) -> NamedArrays:
    """Read the arrays of a `.safetensors` file, of one of torch.save (`.pth`, `.pt`, `.bin`), or of
    one of diffusers' former Flax models (`.msgpack`).

    Raises FileNotFoundError if there is no such file. The message says no more, because only the
    caller knows what the file should be. Raises ValueError for a damaged file.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    try:
        readers = {".safetensors": load_file, ".msgpack": flax_file.load}
        arrays = readers.get(file.suffix, torch_file.load)(file)
        return NamedArrays(arrays, str(file))
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}") from None


def match_network(params: Any, network: Any, source: str) -> Any:
    """Return `params` as float32, if they fit a network.

    params: a tree of arrays.
    network: the parameters of the network: a tree of anything with a shape.
    source: where `params` come from, for the message.

    Raises ValueError, naming the first array that does not fit, if names or shapes differ.
    """
    found, wanted = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (params, network))
    for path in [*wanted, *found]:
        shapes = [tuple(tree[path].shape) if path in tree else None for tree in (found, wanted)]
        if shapes[0] != shapes[1]:
            has, wants = ("none" if shape is None else f"one of shape {shape}" for shape in shapes)
            raise ValueError(
                f"{source} does not fit: of {jax.tree_util.keystr(path)} it has {has}, "
                f"the network {wants}"
            )
    return jax.tree.map(lambda a: np.asarray(a, np.float32), params)
