"""All fields of a config in words, for `main.py config`."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from t2i_jax.config.base import BASE
from t2i_jax.config.checks import limits
from t2i_jax.config.defaults import complete, described
from t2i_jax.config.files import ConfigFile, load, read, shipped
from t2i_jax.core.settings import flatten


def describe(config: ConfigDict) -> list[tuple[str, Any, str]]:
    """Return (key, value, meaning) of every field, section by section.

    The top level, data and text come first, then the sections of the family. A meaning ends with
    the values that are allowed. It is "" for what no field describes.
    """
    values, fields = complete(config.to_dict(), strict=False)
    rows = [(key, value, _meaning(field)) for key, value, field in described(values, fields)]
    keys = tuple(f"{key}." for key, _, _ in rows)
    rows += [
        (key, value, "") for key, value in flatten(values).items() if not f"{key}.".startswith(keys)
    ]
    found = dict.fromkeys(_section(key) for key, _, _ in rows)
    own = [section for section in found if section not in BASE]
    order = ["", "data", "text", *own, *BASE]
    return sorted(rows, key=lambda row: order.index(_section(row[0])))


def listing(spec: str, overrides: Sequence[str] = ()) -> str:
    """Return the fields of the config `spec` with values and meanings, and the file's variants.

    Raises as `load` does.
    """
    config, file = load(spec, overrides), read(spec.partition(":")[0])
    rows = describe(config)
    lines, last = [f"{spec}: {file.title}", "", *_variants(file)], None
    width = max(len(key) for key, _, _ in rows)
    for key, value, meaning in rows:
        if _section(key) != last:
            lines.append("")
        last = _section(key)
        lines.append(f"{key:{width}}  {value!r:20}  {meaning}".rstrip())
    return "\n".join(lines)


def names() -> str:
    """Return the names of the project's own configs, a line each, with what they are."""
    titles = {name: read(name).title for name in shipped()}
    width = max(map(len, titles))
    return "\n".join(f"{name:{width}}  {title}" for name, title in titles.items())


def _variants(file: ConfigFile) -> list[str]:
    """Return lines that say what can follow the file's name."""
    lines = [
        f"{file.path}:{name:{max(map(len, file.variants))}}  {_first_line(variant)}"
        for name, variant in file.variants.items()
    ]
    if len(lines) > 1:
        lines.append(f"Several are applied in turn: {file.path}:{'_'.join([*file.variants][-2:])}")
    if file.argument:
        lines.append(f"{file.path}:ARGUMENT  {file.argument}")
    return lines


def _first_line(function) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]


def _meaning(field) -> str:
    allowed = limits(field)
    return f"{field.meaning} ({allowed})" if allowed and field.meaning else field.meaning or allowed


def _section(key: str) -> str:
    return key.partition(".")[0] if "." in key else ""
