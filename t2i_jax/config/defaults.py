"""Which fields a config has, and their defaults. Configs are nested dicts here."""

import copy
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from t2i_jax.config.base import BASE
from t2i_jax.core.fields import Field
from t2i_jax.core.registry import PACKAGE, defines, lookup, names_a_module

# {section: {name: Field}}: "" is the top level, and "model.block" a section in a section.
Fields = Mapping[str, Mapping[str, Field]]


def complete(given: Mapping, strict: bool = True) -> tuple[dict, Fields]:
    """Return (`given` with the default of every field that it lacks, the fields).

    Which fields there are depends on values: the family, model.network, text.encoder, ... A default
    may be such a value, so the family is asked again until nothing is added.
    strict: raise what a family, a text encoder or a data source refuses, as ValueError. Otherwise
        the fields that it would name are left out.
    """
    config = merge(given, BASE)
    while True:
        fields = _ask(config, strict)
        merged = merge(config, fields)
        if merged == config:
            return with_floats(config, fields), fields
        config = merged


def merge(given: Mapping, fields: Fields) -> dict:
    """Return a copy of `given` with the defaults of the fields that it lacks.

    Raises ValueError for a section that is not one.
    """
    config = copy.deepcopy(dict(given))
    for section, named in fields.items():
        values = values_of(config, section)
        for name, field in named.items():
            values.setdefault(name, copy.deepcopy(field.default))
    return config


def with_floats(config: dict, fields: Fields) -> dict:
    """Return `config` with a float in place of a whole number where the default is a float."""
    config = copy.deepcopy(config)
    for section, named in fields.items():
        values = values_of(config, section)
        for name, field in named.items():
            value = values[name]
            if type(field.default) is float and type(value) is int and abs(value) < 2**53:
                values[name] = float(value)
    return config


def values_of(config: dict, section: str) -> dict:
    """Return the dict of a section of `config`, "model.block", which is added if it is not there.

    Raises ValueError if something else has its name.
    """
    for name in section.split(".") if section else ():
        config = config.setdefault(name, {})
        if not isinstance(config, dict):
            raise ValueError(f"config.{section} is {config!r}: it must be a section of fields")
    return config


def described(config: dict, fields: Fields) -> Iterator[tuple[str, Any, Field]]:
    """Yield (key, value, field) of everything in `config` that `fields` describes."""
    for section, named in fields.items():
        values = values_of(config, section)
        for name, field in named.items():
            if name in values:
                yield join(section, name), values[name], field


def keys_of(fields: Fields) -> list[str]:
    """Return the keys of all fields: "seed", "train.steps", ..."""
    return [join(section, name) for section, named in fields.items() for name in named]


def join(section: str, name: str) -> str:
    """Return the key of a field."""
    return f"{section}.{name}" if section else name


def may_have_more(section: str, config: Mapping) -> bool:
    """Return whether `section` can have names that no field describes.

    So it is with a text encoder or a data source that does not define `fields`.
    """
    folder, selector = {"text": ("text", "encoder"), "data": ("data", "name")}.get(
        section, ("", "")
    )
    return bool(folder) and not defines(folder, config[section][selector], "fields")


def can_be_of_family(name: str, family: str) -> bool:
    """Return whether a section or a field of the top level can be one of a family.

    It must be a word in t2i_jax/families, whose files need not be imported to be read. A family of
    another package can have any.
    """
    return names_a_module(family) or name in _words_of_families()


@functools.cache
def _words_of_families() -> frozenset[str]:
    files = (PACKAGE / "families").glob("*.py")
    return frozenset(re.findall(r"\w+", " ".join(f.read_text(encoding="utf-8") for f in files)))


def _ask(config: Mapping, strict: bool) -> dict[str, dict[str, Field]]:
    """Return the fields of BASE, of the family, of the text encoder and of the data source."""
    fields = {section: dict(named) for section, named in BASE.items()}
    whole: Any = ConfigDict(config).lock()
    for folder, name, own in (
        ("families", whole.family, whole),
        ("text", whole.text.encoder, whole.text),
        ("data", whole.data.name, whole.data),
    ):
        if not name:  # `load` refuses this
            continue
        try:
            found = _fields_of(folder, name, own)
        except ValueError:
            if strict:
                raise
            continue
        for section, named in (found if folder == "families" else {folder: found}).items():
            fields[section] = {**fields.get(section, {}), **named}
        if folder == "text" and found:
            for unused in BASE["text"].keys() - found - {"encoder"}:
                meaning = f"not used by {name!r}; {BASE['text'][unused].meaning}"
                fields["text"][unused] = BASE["text"][unused]._replace(meaning=meaning)
    return fields


def _fields_of(folder: str, name: str, config: ConfigDict) -> Mapping:
    """Return what `fields(config)` of t2i_jax/FOLDER/NAME.py returns; nothing if there is none."""
    if not defines(folder, name, "fields"):
        lookup(folder, name)  # refuses an unknown name, listing those there are
        return {}
    find_fields = lookup(folder, name, "fields")
    try:
        return find_fields(config)
    except (AttributeError, KeyError) as error:
        missing = str(error).strip("\"'")
        raise ValueError(f"{folder}/{name}.py needs a field that is not set: {missing}") from error
