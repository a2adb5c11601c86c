"""What our side hands to its twin: config, weights, a batch, and an output to agree with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-4  # of the largest number of the output
WEIGHTS = "weights.safetensors"  # of a large network: a file that twins map into their memory


def save(folder: Path, config: dict, arrays: Mapping) -> None:
    """Write a config and a nested dict of arrays to `folder`, where `load` finds them."""
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    np.savez(folder / "reference.npz", **flatten(arrays))


def load(folder: Path) -> tuple[dict, dict]:
    """Return (config, nested dict of arrays)."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with np.load(folder / "reference.npz") as file:
        return config, nest(dict(file))


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """Return {"a/b": array} of a nested dict."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = np.asarray(value)
    return flat


def nest(flat: Mapping[str, Any]) -> dict:
    """Return the nested dict of {"a/b": array}."""
    tree: dict = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return tree


def require_agreement(found: np.ndarray, expected: np.ndarray, what: str) -> float:
    """Return the largest difference over the largest expected number.

    Raises ValueError if shapes differ, or if it is above TOLERANCE: then two different things would
    be compared.
    """
    if found.shape != expected.shape:
        raise ValueError(f"{what} gives an output of shape {found.shape}, ours {expected.shape}")
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{what} gives another output than ours with the same weights: the largest difference "
            f"is {difference:.1e} of the largest number, and {TOLERANCE:.0e} is allowed"
        )
    return difference
