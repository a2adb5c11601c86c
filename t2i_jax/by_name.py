"""The file name is the registry: `make_of("families", "flow")` is the function `make` of t2i_jax/families/flow.py."""

import difflib
import importlib
from collections.abc import Callable, Iterable
from pathlib import Path


def make_of(folder: str, name: str, function: str = "make") -> Callable:
    """`function` of t2i_jax/FOLDER/NAME.py. Raises ValueError, naming those that have it and the nearest, if there is none."""
    names = having(folder, function)
    if name not in names:
        raise ValueError(f"there is no {name!r} in {folder}: there are {', '.join(names)}{hint(name, names)}")
    return getattr(importlib.import_module(f"t2i_jax.{folder}.{name}"), function)


def having(folder: str, function: str) -> list[str]:
    """Names of the files of t2i_jax/FOLDER that have a `function`."""
    files = (Path(__file__).parent / folder).glob("*.py")
    return sorted(f.stem for f in files if f"\ndef {function}(" in f.read_text(encoding="utf-8"))


def hint(name, names: Iterable[str]) -> str:
    """What to add to the message that there is no such name: "; did you mean 'flow'?", or "" if none is like it."""
    near = difflib.get_close_matches(str(name), names, 1)
    return f"; did you mean {near[0]!r}?" if near else ""
