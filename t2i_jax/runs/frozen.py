"""Nested dicts of arrays on disk, and those that a run uses and never trains: its frozen parts."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import empty_node, flatten_dict, unflatten_dict

from t2i_jax.core.files import atomic_path
from t2i_jax.weights.stored import bytes_of, open_file, write_file

EMPTY = "empty"  # in the metadata of a file: the paths of dicts without arrays


def save_frozen(workdir, tree: Any) -> str:
    """Write frozen parts to `frozen/HASH.safetensors`, unless they are there already.

    Returns the hash (see `tree_hash`).
    """
    name = tree_hash(tree)
    path = Path(workdir) / "frozen" / f"{name}.safetensors"
    if not path.exists():
        write_tree(path, tree)
    return name


def write_tree(path: Path, tree: Any) -> None:
    """Write a nested dict of arrays to a safetensors file, whole or not at all.

    Empty dicts are named in the metadata of the file.
    """
    nodes: Any = flatten_dict(tree, keep_empty_nodes=True, sep="/")
    empty = [name for name, node in nodes.items() if node is empty_node]
    flat = {name: np.asarray(x) for name, x in nodes.items() if name not in empty}
    with atomic_path(path) as part:
        write_file(part, flat, {EMPTY: json.dumps(empty)} if empty else None)


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
        stored = open_file(path)
        arrays, empty = dict(stored), json.loads(stored.metadata.get(EMPTY, "[]"))
    except ValueError as error:
        raise ValueError(f"{error}: put back the file of the training") from error
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
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(bytes_of(value))
    return digest.hexdigest()[:16]
