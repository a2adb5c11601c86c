"""The contract of a config field: its default, its meaning, and the values that it can have."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Field(NamedTuple):
    """One field of a config section.

    default: its value unless a config sets another. Its type is the type of the field.
    meaning: what it does, in a few words, with its unit.
    low, high: the smallest and the largest value allowed, of each element of a tuple; None for no
        limit. A number must be finite, unless it equals an infinite limit.
    choices: the values allowed, if they can be listed, also of each element of a tuple.
    """

    default: Any
    meaning: str
    low: float | None = None
    high: float | None = None
    choices: tuple = ()


def defaults_of(fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return {name: default} of a section."""
    return {name: field.default for name, field in fields.items()}


def module_fields(module: type, leave_out: tuple[str, ...] = ()) -> dict[str, Field]:
    """Return the fields that a config can set of a flax module, with the meanings in its docstring.

    A meaning is a paragraph "name: what it does" or "name, other: what they do" of the docstring.
    Fields without a default are left out: a family sets them itself. In configs a dtype is a
    string.
    """
    meanings = _documented(module)
    found = {}
    for field in dataclasses.fields(module):
        default = field.default
        if default is dataclasses.MISSING or field.name in ("parent", "name", *leave_out):
            continue
        if field.name == "dtype":
            default = np.dtype(default).name
        elif isinstance(default, Mapping):
            default = dict(default)
        found[field.name] = Field(default, meanings.get(field.name, ""))
    return found


# "name: meaning" or "name, other: meaning" at the start of a line. The meaning ends at an empty
# line or at the next such line.
START = r"[ \t]*(\w+(?:, \w+)*): +"
PARAGRAPH = re.compile(rf"^{START}(.+(?:\n(?!{START})[ \t]*\S.*)*)", re.MULTILINE)


def _documented(module: type) -> dict[str, str]:
    """Return {name: meaning} of the docstrings of a class and of those it derives from."""
    found: dict[str, str] = {}
    for each in reversed(module.__mro__):
        for names, meaning, _ in PARAGRAPH.findall(each.__dict__.get("__doc__") or ""):
            for name in names.split(", "):
                found[name] = " ".join(meaning.split())
    return found
