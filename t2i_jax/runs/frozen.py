"""Nested dicts of arrays on disk, and those that a run uses and never trains: its frozen parts."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import empty_node, flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

EMPTY = "empty"  # in the metadata of a file: the paths of dicts without arrays


def save_frozen(workdir, tree: Any) -> str:
    """Write frozen parts to `frozen/HASH.safetensors`, unless they are there already.

    Returns the hash (see `tree_hash`).
    """
    name = tree_hash(tree)
    path = Path(workdir) / "frozen" / f"{name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tree(path, tree)
    return name


def write_tree(path: Path, tree: Any) -> None:
    """Write a nested dict of arrays to a safetensors file, whole or not at all.

    Empty dicts are named in the metadata of the file.
    """
    nodes: Any = flatten_dict(tree, keep_empty_nodes=True, sep="/")
    empty = [name for name, node in nodes.items() if node is empty_node]
    # Not np.ascontiguousarray, which makes a scalar an array of one number.
    flat = {name: np.asarray(x, order="C") for name, x in nodes.items() if name not in empty}
    temporary = path.with_suffix(".tmp")
    try:
        save_file(flat, temporary, {EMPTY: json.dumps(empty)} if empty else None)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written ({error})") from error
    temporary.replace(path)


def load_frozen(workdir, name: str) -> dict:
    """Read the tree that `save_frozen` wrote under the hash `name`.

    Raises FileNotFoundError if it is missing, ValueError if its content does not have that hash.
    """
    path = Path(workdir) / "frozen" / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: the run needs what was fitted before its training"
        )
    return read_tree(path, name)


def read_tree(path: Path, name: str) -> dict:
    """Read the tree that `write_tree` wrote. name: its hash.

    Raises ValueError if the file is damaged, or its content does not have that hash.
    """
    try:
        with safe_open(path, "np") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
            empty = json.loads((file.metadata() or {}).get(EMPTY, "[]"))
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged ({error}): put back the file of the training"
        ) from error
    tree = unflatten_dict({**arrays, **{name: {} for name in empty}}, sep="/")
    if tree_hash(tree) != name:
        raise ValueError(f"{path} was changed: its content does not have the hash {name}")
    return tree


def tree_hash(tree: Any) -> str:
    """Return 16 hex digits of the sha256 of a nested dict of arrays.

    It covers names, types, shapes and bytes.
    """
    digest = hashlib.sha256()
    for name, value in sorted(flatten_dict(tree, sep="/").items()):
        value = np.ascontiguousarray(value)
        digest.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
    return digest.hexdigest()[:16]
