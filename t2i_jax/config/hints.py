"""The key that was meant: `optim.lr` is likely `optim.learning_rate`."""

import difflib
from collections.abc import Callable, Iterable


def unknown_key(key: str, known: Iterable[str], set_by: str = "") -> ValueError:
    """Return the error for an unknown key, with the nearest that there is.

    set_by: what sets it, if it is not the command line.
    """
    known = list(dict.fromkeys(known))
    inside = [name for name in known if name.startswith(f"{key}.")]
    section = key.rpartition(".")[0]
    beside = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == section]
    if inside:
        hint = f": it is a section, with {', '.join(inside[:3])}{', ...' if inside[3:] else ''}"
    elif near := nearest_key(key, known):
        hint = f"; did you mean {near!r}?"
    elif section in known:
        hint = f": {section} is a field, not a section"
    elif section and beside:
        hint = f": {section} has {', '.join(beside)}"
    else:
        hint = ""
    return ValueError(f"unknown config key {key!r}{f' (set by {set_by})' if set_by else ''}{hint}")


def nearest_key(key: str, known: Iterable[str]) -> str | None:
    """Return the known key that was most likely meant by `key`, or None.

    Last components are compared. A section that is not known is taken for the one with the most
    similar name; a field that its section does not have can be one of another section.
    """
    known = list(known)
    section, _, last = key.rpartition(".")
    fields: dict[str, list[str]] = {}
    for name in known:
        fields.setdefault(name.rpartition(".")[0], []).append(name)
    if section not in fields:
        near = difflib.get_close_matches(section, [name for name in fields if name], 1)
        if near and section not in known:
            return _most_like(last, fields[near[0]], likeness, 0.65) or f"{near[0]}.{last}"
    found = _most_like(last, fields.get(section, ()), likeness, 0.65)
    found = found or _most_like(last, known, same_or_typo, 0.9 if section else 0.75)
    if found or section:
        return found
    return next(iter(difflib.get_close_matches(key, filter(None, fields), 1)), None)


def likeness(asked: str, name: str) -> float:
    """Return how likely it is, from 0 to 1, that `asked` stands for `name`, or is a part of it."""
    parts = asked in name.split("_") or (len(asked) > 2 and name.startswith(asked))
    return max(0.8 * parts, same_or_typo(asked, name))


def same_or_typo(asked: str, name: str) -> float:
    """Return how likely it is, from 0 to 1, that `asked` is `name` mistyped, or its initials."""
    words = [word for word in name.split("_") if word]
    initials = len(words) > 1 and asked == "".join(word[0] for word in words)
    return max(0.9 * initials, difflib.SequenceMatcher(None, asked, name).ratio())


def _most_like(asked: str, names: Iterable[str], score: Callable, at_least: float) -> str | None:
    scores = {name: score(asked, name.rpartition(".")[2]) for name in names}
    best = max(scores, key=scores.__getitem__, default=None)
    return best if best is not None and scores[best] >= at_least else None
