"""Comparing trees of arrays by their paths and shapes."""

from typing import Any

import jax


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
