"""Lookup by file name: `lookup("families", "gan")` is the function `make` of families/gan.py.

A name with a dot is a module of another package: `lookup("families", "my_package.my_family")`.
"""

import difflib
import importlib
from collections.abc import Callable, Iterable
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


def lookup(folder: str, name: str, function: str = "make") -> Callable:
    """Return `function` of t2i_jax/FOLDER/NAME.py, or of the module `name` if there is a dot in it.

    Raises ValueError, naming the files that have it and the nearest name, if there is none.
    """
    if names_a_module(name):
        return _of_module(name, folder, function)
    names = names_with(folder, function)
    if name not in names:
        known = ", ".join(names)
        raise ValueError(
            f"there is no {name!r} in {folder}: there are {known}{did_you_mean(name, names)}"
        )
    return getattr(importlib.import_module(f"t2i_jax.{folder}.{name}"), function)


def defines(folder: str, name: str, function: str) -> bool:
    """Return whether `lookup` would find `function`. Imports nothing of this package."""
    if not names_a_module(name):
        return name in names_with(folder, function)
    try:
        lookup(folder, name, function)
    except ValueError:
        return False
    return True


def names_a_module(name: str) -> bool:
    """Return whether `name` has a dot in it and is that of a module: "my_package.my_family"."""
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def _of_module(name: str, folder: str, function: str) -> Callable:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise ValueError(
            f"there is no module {name!r} for {folder}: install its package, or put the folder "
            "that holds it on PYTHONPATH"
        ) from None
    if not hasattr(module, function):
        raise ValueError(f"the module {name!r} has no function {function!r}: see {folder}")
    return getattr(module, function)


def names_with(folder: str, function: str) -> list[str]:
    """Return the names of the files of t2i_jax/FOLDER that define `function`. Imports nothing."""
    files = (PACKAGE / folder).glob("*.py")
    return sorted(
        file.stem for file in files if f"\ndef {function}(" in file.read_text(encoding="utf-8")
    )


def did_you_mean(name, names: Iterable[str]) -> str:
    """Return "; did you mean 'gan'?" for the end of a message, or "" if no name is near."""
    near = difflib.get_close_matches(str(name), names, 1)
    return f"; did you mean {near[0]!r}?" if near else ""
