"""The check of a config's names and values against its fields."""

import math
from collections.abc import Mapping
from typing import Any

from t2i_jax.config.defaults import (
    Fields,
    can_be_of_family,
    described,
    join,
    keys_of,
    may_have_more,
)
from t2i_jax.config.hints import unknown_key
from t2i_jax.core.fields import Field
from t2i_jax.core.registry import did_you_mean, lookup

KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a tuple",
    dict: "a dict",
}


def check(config: dict, fields: Fields) -> None:
    """Raise ValueError for an unknown name, and for a value of another type or out of range."""
    for folder, name in (
        ("families", config["family"]),
        ("data", config["data"]["name"]),
        ("text", config["text"]["encoder"]),
    ):
        if not name:
            lookup(folder, name)  # refuses it, listing those there are
    check_names(config, fields)
    check_values(config, fields)


def check_values(config: dict, fields: Fields) -> None:
    """Raise ValueError for a value of another type or out of range."""
    for key, value, field in described(config, fields):
        check_value(key, value, field)
        if key == "optim.players":
            check_players(value, fields["optim"])


def check_names(config: Mapping, fields: Fields) -> None:
    """Raise ValueError for a name in a section that no field describes.

    What a family knows, but does not use with these settings, may stay at the top level.
    """
    known = keys_of(fields)
    for name, value in config.items():
        if name in fields and isinstance(value, Mapping):
            if not may_have_more(name, config):
                _check_section(name, value, fields)
        elif name not in fields[""] and not can_be_of_family(name, config["family"]):
            raise unknown_key(name, known, "the config file")


def _check_section(section: str, values: Mapping, fields: Fields) -> None:
    for name, value in values.items():
        key = join(section, name)
        if key in fields and isinstance(value, Mapping):
            _check_section(key, value, fields)
        elif name not in fields[section]:
            raise unknown_key(
                key, [join(section, other) for other in fields[section]], "the config file"
            )


def check_players(players: Mapping, optim: Mapping[str, Field]) -> None:
    """Check the values of `optim` that single players have of their own."""
    for player, own in players.items():
        if not isinstance(own, Mapping):
            raise ValueError(
                f"config.optim.players.{player} is {own!r}: it must be a dict of fields of optim"
            )
        for name, value in own.items():
            key = f"optim.players.{player}.{name}"
            if name not in optim or name == "players":
                raise unknown_key(key, [f"optim.players.{player}.{other}" for other in optim])
            check_value(key, value, optim[name])


def check_value(key: str, value, field: Field) -> None:
    """Raise ValueError, saying what would be right, for a value that `field` does not allow."""
    if right := what_is_right(value, field):
        meaning = f" ({field.meaning})" if field.meaning else ""
        hint = did_you_mean(value, map(str, field.choices)) if isinstance(value, str) else ""
        raise ValueError(f"config.{key} is {value!r}: it must be {right}{meaning}{hint}")


def what_is_right(value, field: Field) -> str:
    """Return what `value` must be, in words, or "" if it is allowed."""
    default = field.default
    if default is not None and not has_type(value, type(default)):
        return f"{KINDS.get(type(default), type(default).__name__)}, such as {default!r}"
    for each in value if isinstance(value, tuple) else (value,):
        if isinstance(default, tuple) and default and not has_type_of_one(each, default):
            return f"a tuple such as {default!r}"
        if field.choices and each not in field.choices:
            return limits(field)
        if type(each) in (int, float) and not in_range(each, field):
            return limits(field) or "a finite number"
    return ""


def override_settings(
    defaults: Mapping[str, Any], given: Mapping[str, Any], fields: Mapping[str, Field]
) -> dict[str, Any]:
    """Return the defaults of an ability's settings, overridden by `given`.

    Each value gets the type of its default.
    fields: what the values of some of them can be.
    Raises ValueError for an unknown setting, and for a value that it cannot have.
    """
    known = dict(defaults)
    for name, value in given.items():
        if name not in known:
            raise ValueError(
                f"no setting {name!r}: this model has {', '.join(known)}{did_you_mean(name, known)}"
            )
        known[name] = of_type_of(known[name], value, name)
        if name in fields and (right := what_is_right(known[name], fields[name])):
            raise ValueError(f"{name} is {value!r}: it must be {right} ({fields[name].meaning})")
    return known


def of_type_of(like, value, name: str):
    """Return `value`, of the type of `like`: a whole number can be a float, and the reverse.

    name: of the setting, for the message. Raises ValueError for a value of another type.
    """
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    kind = type(like)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is not kind:
        raise ValueError(
            f"{name} is {value!r:.60}: it is {KINDS.get(kind, kind.__name__)}, such as {like!r}"
        )
    return value


def has_type(value, kind: type) -> bool:
    """Return whether `value` is of this type; a whole number is a float too."""
    if kind is dict:
        return isinstance(value, Mapping)
    return type(value) is kind or (kind is float and type(value) is int)


def has_type_of_one(value, others: tuple) -> bool:
    """Return whether `value` is of the type of one of `others`."""
    return any(has_type(value, type(other)) for other in others)


def in_range(number: float, field: Field) -> bool:
    """Return whether a number is within the limits, and finite unless a limit is infinite."""
    if isinstance(number, float) and not math.isfinite(number):
        return number in (field.low, field.high)
    above = field.low is None or number >= field.low
    return above and (field.high is None or number <= field.high)


def limits(field: Field) -> str:
    """Return in words which values are allowed: "from 0 to 1", "at least 1", "a, b or c"."""
    if field.choices:
        *most, last = (str(choice) or "''" for choice in field.choices)
        return f"{', '.join(most)} or {last}" if most else last
    if field.low is not None and field.high is not None and math.isfinite(field.high):
        return f"from {_short(field.low)} to {_short(field.high)}"
    if field.low is not None:
        return f"at least {_short(field.low)}"
    return f"at most {_short(field.high)}" if field.high is not None else ""


def _short(number: float) -> str:
    return f"{int(number):,}" if number == int(number) else f"{number:g}"
