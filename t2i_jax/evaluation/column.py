"""A column of the table that `compare` prints, and how its number is found in metrics.json."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Column(NamedTuple):
    """A column of the table.

    title: the head of the column.
    value: (metrics.json as a dict) -> a number, or None if it was not measured.
    format: how the number is printed, such as "{:.3f}".
    better: 1 if a higher number is better, -1 if a lower one is, 0 if neither.
    meaning: what the number is, for the reader of the report.
    order: the place of the column in the table. Columns are sorted by it.
    interval: (metrics.json) -> {"low", "high"} to print after the number, or None.
    headline: starts the sentence about the best model at the top of the report; "" for none.
    """

    title: str
    value: Callable[[dict], Any]
    format: str
    better: int
    meaning: str
    order: int
    interval: Callable[[dict], dict | None] = lambda metrics: None
    headline: str = ""

    def text(self, metrics: dict) -> str:
        """Return what the table shows for one model; "" if it was not measured."""
        value, interval = self.value(metrics), self.interval(metrics)
        if value is None:
            return ""
        text = self.format.format(value)
        return f"{text} [{interval['low']:.3f}, {interval['high']:.3f}]" if interval else text


def format_share(number: dict) -> str:
    """Return {"value", "low", "high"} as "0.866 [0.845, 0.887]"."""
    return f"{number['value']:.3f} [{number['low']:.3f}, {number['high']:.3f}]"


def at(*path: str) -> Callable[[dict], Any]:
    """Return a function that finds the value at `path` in nested dicts, or None."""

    def value(metrics):
        for key in path:
            metrics = metrics.get(key) if isinstance(metrics, dict) else None
        return metrics

    return value


def length_at(*path: str) -> Callable[[dict], int | None]:
    """Return a function that finds the length of the list at `path`, or None."""
    find = at(*path)
    return lambda metrics: None if find(metrics) is None else len(find(metrics))


def scaled(factor: float, value: Callable) -> Callable[[dict], float | None]:
    """Return a function that gives `factor` times a value, or None."""
    return lambda metrics: None if value(metrics) is None else factor * value(metrics)


def total(*values: Callable) -> Callable[[dict], float | None]:
    """Return a function that gives the sum of values, or None if one of them is missing."""

    def value(metrics):
        found = [each(metrics) for each in values]
        return None if any(each is None for each in found) else sum(found)

    return value
