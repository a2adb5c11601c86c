"""Checks of what is given to the functions that a user calls."""

import operator
import re
from collections.abc import Iterable, Mapping

MAX_NUM = 10**6
MAX_SEED = 2**32 - 1


def whole_number(name: str, value, low: int, high: int) -> int:
    """Return `value` as an int. Raises ValueError unless it is one from `low` to `high`.

    name: of the argument, for the message.
    """
    try:
        number = low - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        is_whole = isinstance(value, float) and value.is_integer()
        number = int(value) if is_whole else low - 1
    if not low <= number <= high:
        raise ValueError(f"{name} is {value!r}: it is a whole number from {low} to {high}")
    return number


def texts(name: str, value) -> list[str]:
    """Return one text or several as a list. Raises ValueError for what is neither.

    name: of the argument, for the message.
    """
    given = [value] if isinstance(value, str) else value
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"{name} is {value!r:.60}: it is a text, or a list of texts")
    listed = list(given)
    for each in listed:
        if not isinstance(each, str):
            raise ValueError(f"{name} has {each!r:.60} in it: it is a text, or a list of texts")
        if any("\ud800" <= letter <= "\udfff" for letter in each):
            raise ValueError(f"{name}: {each!r:.60} is not valid Unicode text")
    return listed


def text_of_each(name: str, value, count: int) -> list[str]:
    """Return one text for each of `count` pictures; a single text is for all of them.

    name: of the argument, for the message.
    Raises ValueError as `texts`, and for another number of texts.
    """
    listed = texts(name, value)
    listed = listed * count if isinstance(value, str) else listed
    if len(listed) != count:
        raise ValueError(f"{len(listed)} {name} for {count} pictures")
    return listed


def regular_expression(name: str, text: str) -> re.Pattern[str]:
    """Return `text` compiled. Raises ValueError unless it is a regular expression.

    name: of the setting, for the message.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{name} = {text!r} is not a regular expression: {error}") from None
