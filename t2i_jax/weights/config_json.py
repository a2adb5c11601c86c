"""A published config.json, and the fields of our networks from it."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises FileNotFoundError if there is no such file, and ValueError if it holds no object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def read_fields(
    config: Mapping[str, Any],
    sizes: Mapping[str, tuple[str, Any]],
    only: Mapping[str, tuple[Any, Any]],
    unused: Collection[str] | None = None,
) -> dict[str, Any]:
    """Return the fields of a network of ours.

    config: what config.json holds.
    sizes: {our field: (the published field, its value where config.json leaves it out)}.
    only: {published field: (the one value that our network computes, its value where config.json
        leaves it out)}.
    unused: published fields that our network does not need. Every other field is refused, unless
        its name starts with "_". None: no field is refused.

    Raises ValueError that names a field and its value if our network does not compute it.
    """
    for name, (computed, default) in only.items():
        if (value := config.get(name, default)) != computed:
            raise ValueError(f"config.json has {name} {value!r}; only {computed!r} is supported")
    if unused is not None:
        known = {*only, *unused, *(theirs for theirs, _ in sizes.values())}
        unknown = [name for name in config if name not in known and not name.startswith("_")]
        if unknown:
            raise ValueError(
                f"config.json has {unknown[0]} {config[unknown[0]]!r}; this field is not supported"
            )
    return {ours: config.get(theirs, default) for ours, (theirs, default) in sizes.items()}
