"""Settings as plain mappings: defaults and their types, and flat views with dotted names."""

from collections.abc import Mapping


def with_defaults(defaults: Mapping, given: Mapping, section: str) -> dict:
    """Return `defaults` overridden by the fields in `given`.

    A whole number becomes a float where the default is a float.

    section: the name of the config section, for the message.

    Raises ValueError, naming the known fields, for a field that `defaults` does not have.
    """
    if unknown := sorted(set(given) - set(defaults)):
        known = ", ".join(defaults)
        name = printable(unknown[0])
        raise ValueError(f"{section}.{name} is unknown: {section} has {known}")
    floats = {
        name: float(value)
        for name, value in given.items()
        if type(value) is int and type(defaults[name]) is float
    }
    return {**defaults, **dict(given), **floats}


def flatten(config) -> dict:
    """Return {"a.b": value} for {"a": {"b": value}}, at any depth.

    Empty mappings have no values, so nothing is left of them.
    """
    flat = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            flat |= {f"{key}.{name}": leaf for name, leaf in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def printable(name: str) -> str:
    """Return a name as it is, or quoted if it would break the line that it is printed in."""
    return name if name.isprintable() else repr(name)
