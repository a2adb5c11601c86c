"""Whether two run folders hold the same run: all numbers of the last checkpoint, and metrics.jsonl.

For tests and scripts.
"""

from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging


def differences(one: Path, other: Path) -> list[str]:
    """Return the names of what differs between two runs: [] if they are the same, bit for bit.

    Compared are parameters, optimizer states, averages, the random key, the step, and the text of
    metrics.jsonl.
    """
    a, b = arrays(one), arrays(other)
    found = [
        name for name in sorted(a.keys() | b.keys()) if not same_bits(a.get(name), b.get(name))
    ]
    texts = [(folder / "metrics.jsonl").read_text(encoding="utf-8") for folder in (one, other)]
    return found + (["metrics.jsonl"] if texts[0] != texts[1] else [])


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Return all arrays of a run's last checkpoint by item and path, wherever they were saved."""
    logging.set_verbosity(logging.ERROR)  # Orbax warns that this is not the folder of a manager
    folder = workdir / "checkpoints"
    last = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    found, reader = {}, ocp.StandardCheckpointer()
    for item in ("train", "ema"):
        path = folder / str(last) / item
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
            reader.metadata(path).item_metadata.tree,
        )
        found |= named(item, reader.restore(path, shapes))
    return found


def named(item: str, tree) -> dict[str, np.ndarray]:
    """Return the arrays of a tree by `item` and path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {item + jax.tree_util.keystr(path): np.asarray(value) for path, value in leaves}


def same_bits(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    """Return whether two arrays are there and have the same shape, type and bits."""
    if a is None or b is None:
        return False
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
