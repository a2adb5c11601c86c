"""The type checker of the tests: array annotations only, so that fakes may stand in for classes."""

from typing import get_args

from beartype import beartype
from jaxtyping import AbstractArray


def check_arrays(function):
    """Decorate a function so that arrays of a wrong shape or type raise an error."""
    hints = getattr(function, "__annotations__", {})
    kept = {name: hint for name, hint in hints.items() if mentions_arrays(hint)}
    if not kept:
        return function
    function.__annotations__ = kept
    return beartype(function)


def mentions_arrays(hint) -> bool:
    """Return whether a jaxtyping annotation occurs in a type hint."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(mentions_arrays(part) for part in get_args(hint))
