"""Fields that are set by text: "optim.learning_rate=0.01"."""

import ast
import copy
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from t2i_jax.config.base import BASE, OPEN_SECTIONS, OTHER_RUNS
from t2i_jax.config.checks import check_players, check_value
from t2i_jax.config.defaults import (
    Fields,
    can_be_of_family,
    complete,
    described,
    keys_of,
    may_have_more,
    values_of,
)
from t2i_jax.config.hints import unknown_key
from t2i_jax.core.fields import Field
from t2i_jax.core.settings import flatten, printable

# Fields that are copied from another run.
FILLED_IN = tuple(f"{section}.config" for section in OTHER_RUNS)
# What `ast.literal_eval` raises for a text that it cannot read.
UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def override(config: ConfigDict, overrides: Sequence[str]) -> None:
    """Apply "a.b=value", ... to a config that is complete.

    Raises ValueError for an unknown key, naming the nearest, and for a value of the wrong type or
    out of range.
    """
    if not overrides:
        return
    before = config.to_dict()
    after, fields = apply(before, overrides)
    changed = [f"{text.partition('=')[0]}." for text in overrides]
    for key, value, field in described(after, fields):
        if any(other.startswith(f"{key}.") for other in changed):
            check_value(key, value, field)
            if key == "optim.players":
                check_players(value, fields["optim"])
    with config.unlocked(), config.ignore_type():
        for name in before:
            config[name] = after[name]


def apply(given: Mapping, overrides: Sequence[str]) -> tuple[dict, Fields]:
    """Return (`given` with the overrides, and with the default of every other field; the fields).

    An override can bring other fields: those of another family, network, encoder or data source.
    So each override whose key is known is applied, then the fields are looked up again, and so on
    with the rest. Defaults come last, lest those of another family be left behind.
    Raises ValueError for an unknown key, and for a value of the wrong type.
    """
    given = copy.deepcopy(dict(given))
    waiting = [_split(text) for text in overrides]
    _refuse_at_once(waiting, given)
    given = _without_other_data(given, waiting)
    waiting = [
        pair for pair in waiting if find_field(BASE, pair[0]) is None or not put(given, BASE, *pair)
    ]
    while waiting:
        # Not strict: an override that is still to come may mend what the family refuses.
        _, fields = complete(given, strict=False)
        left = [pair for pair in waiting if not put(given, fields, *pair)]
        if len(left) == len(waiting):
            complete(given)  # what the family refuses says more than an unknown key
            raise unknown_key(left[0][0], [*flatten(given), *keys_of(fields)])
        waiting = left
    return complete(given)


def put(config: dict, fields: Fields, key: str, text: str) -> bool:
    """Set the field `key` of a nested dict to the value that `text` stands for.

    Returns False, and sets nothing, if no such field is known.
    Raises ValueError if the text does not stand for a value of the field's type.
    """
    field, known = find_field(fields, key), flatten(config)
    if field is None and key not in known:
        return False
    default = None if field is None else field.default
    like = known.get(key) if default is None else default
    try:
        value = parse(text, like)
    except UNREADABLE:
        now = known.get(key, like)
        written = ": write \"('a','b')\" or \"(1,2)\"" if isinstance(like, tuple) else ""
        raise ValueError(
            f"config.{key} is {type(like).__name__} ({now!r}); {text!r} is not{written}"
        ) from None
    section, _, name = key.rpartition(".")
    values_of(config, section)[name] = value
    return True


def find_field(fields: Fields, key: str) -> Field | None:
    """Return the field that describes `key`, or None.

    Inside a field that is a dict every key is allowed: `optim.players.discriminator.b1`.
    """
    parts = key.split(".")
    for place in reversed(range(len(parts))):
        field = fields.get(".".join(parts[:place]), {}).get(parts[place])
        if field is None:
            continue
        inside = parts[place + 1 :]
        if not inside:
            return field
        if parts[: place + 1] == ["optim", "players"] and len(inside) == 2:
            own = {name: each for name, each in fields["optim"].items() if name != "players"}
            return own.get(inside[1], Field(None, ""))
        return Field(None, "") if isinstance(field.default, dict) else None
    return None


def parse(text: str, like: Any) -> Any:
    """Return the value that `text` stands for, of the type of `like`.

    If `like` is None: what Python reads it as, or the text itself.
    Raises one of UNREADABLE if it stands for no such value.
    """
    if isinstance(like, str):
        return text
    if isinstance(like, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    if isinstance(like, float):
        return float(text)  # "3" and "inf" too
    try:
        value = tuples(ast.literal_eval(text))
    except UNREADABLE:
        if like is None:
            return text
        raise
    if isinstance(value, dict) and not _has_names(value):
        raise ValueError
    if like is not None and type(value) is not type(like):
        raise ValueError
    return value


def tuples(value) -> Any:
    """Return nested data with tuples in place of lists."""
    if isinstance(value, Mapping):
        return {key: tuples(leaf) for key, leaf in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value


def _has_names(value: Mapping) -> bool:
    """Return whether all keys can be those of a config."""
    names = all(isinstance(key, str) and key and "." not in key for key in value)
    return names and all(_has_names(each) for each in value.values() if isinstance(each, dict))


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        key = printable(key)
        raise ValueError(f"--config.{key} has no value: write --config.{key}=VALUE")
    return key, value


def _without_other_data(given: dict, overrides: Sequence[tuple[str, str]]) -> dict:
    """Return `given`, of whose section `data` the fields that another `data.name` lacks are gone.

    So the config of a run can be trained on other data by the command line alone.
    """
    name = next((text for key, text in overrides if key == "data.name"), None)
    data = given.get("data")
    if name is None or not isinstance(data, Mapping) or name == data.get("name"):
        return given
    given = {**given, "data": {**data, "name": name}}
    try:
        fields = complete(given, strict=False)[1]["data"]
    except ValueError:  # no such source: `complete` says so later
        return given
    if not may_have_more("data", given):
        given["data"] = {key: value for key, value in given["data"].items() if key in fields}
    return given


def _refuse_at_once(overrides: Sequence[tuple[str, str]], given: Mapping) -> None:
    """Raise ValueError for what is wrong for every family, before one is imported (with JAX).

    That is a key that no family can have, one that is set to two values, and one that is filled in.
    """
    known = flatten(given)
    values = dict(reversed(overrides))
    for key, value in overrides:
        if values[key] != value:
            raise ValueError(f"config.{key} is set twice: to {values[key]!r} and to {value!r}")
        if key.startswith(FILLED_IN):
            section = key.partition(".")[0]
            raise ValueError(f"config.{section}.config is that of {section}.run: set {section}.run")
    family = next((text for key, text in overrides if key == "family"), given.get("family", ""))
    for key, _ in overrides:
        section = key.partition(".")[0]
        closed = section in BASE and section not in OPEN_SECTIONS
        possible = section in BASE or section in given or can_be_of_family(section, family)
        if key in known or find_field(BASE, key):
            continue
        if closed or not possible or key in BASE or key in given:
            raise unknown_key(key, [*known, *keys_of(BASE)])
