"""Trees of arrays: compared by their paths and shapes, and moved to the device."""

from typing import Any

import jax
import jax.numpy as jnp


def mismatches(found: Any, wanted: Any) -> list[str]:
    """Return a line for each array of two trees that is missing, unknown or of another shape.

    found, wanted: trees of anything with a shape.
    """
    have, want = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (found, wanted))
    name = jax.tree_util.keystr
    lines = [
        f"{name(path)}: {have[path].shape if path in have else 'missing'}, not {want[path].shape}"
        for path in want
        if path not in have or have[path].shape != want[path].shape
    ]
    return lines + [f"{name(path)}: unknown here" for path in have if path not in want]


def require_fit(found: Any, wanted: Any, message: str) -> None:
    """Raise ValueError, with `message` and the first differences, if two trees do not match.

    found, wanted: see `mismatches`.
    """
    if wrong := mismatches(found, wanted):
        listed = "\n  ".join(wrong[:5])
        raise ValueError(f"{message}:\n  {listed}")


def moved_to_device(tree: Any) -> Any:
    """Return a nested dict of NumPy arrays as JAX arrays, and empty `tree` meanwhile.

    So no array is in the memory of the host and of the device for longer than its own move.
    """
    moved = {}
    for name in list(tree):
        value = tree.pop(name)
        moved[name] = moved_to_device(value) if isinstance(value, dict) else jnp.asarray(value)
    return moved
