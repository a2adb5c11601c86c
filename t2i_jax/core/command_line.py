"""The parser of the command line, whose errors are one line, and the types of its arguments."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence

from t2i_jax.core.registry import did_you_mean


class Once(argparse.Action):
    """Store a value that is given once and is not empty; only a prompt may be empty."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Store `values`, as argparse asks. Exit with a line of error for what is refused."""
        given = namespace.__dict__.setdefault("given", set())
        if option_string in given:
            parser.error(f"argument {option_string}: it is given twice")
        if values == "" and self.dest != "prompt":
            parser.error(f"argument {option_string}: its value is empty")
        if option_string:
            given.add(option_string)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.register("action", None, Once)
        self.asked: list[str] = []

    def parse_known_args(self, args=None, namespace=None):  # pyright: ignore
        """Parse as argparse does, and keep the arguments for the message of an error."""
        self.asked = [*(sys.argv[1:] if args is None else args)]
        return super().parse_known_args(args, namespace)

    def error(self, message):
        """Print one line and exit with code 2, as argparse does after a page of usage.

        If a required argument is missing, one that is misspelt is named first.
        """
        known = self._option_string_actions
        names = [name for arg in self.asked if (name := arg.partition("=")[0]).startswith("--")]
        unknown = [name for name in names if name not in known and name[:9] != "--config."]
        if "required" in message and unknown and (near := did_you_mean(unknown[0], known)):
            message = f"unknown argument {unknown[0]!r}{near}; {message}"
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: {line}; see {self.prog} --help\n")


def filled(text: str) -> str:
    """The type of an argument that names something, where several can be given."""
    if not text:
        raise argparse.ArgumentTypeError("its value is empty")
    return text


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return the type of an argument that is a whole number from `low` to `high`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {low} to {high:,}"
            )
        return number

    return read


def number(low: float, high: float) -> Callable[[str], float]:
    """Return the type of an argument that is a number from `low` to `high`."""

    def read(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not low <= found <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return found

    return read


def minutes(text: str) -> float:
    """Return a number of minutes, more than 0: the type of an argument."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes, more than 0")
    return number


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error says that there is not enough memory, on the host or a device."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).partition("\n")[0]


def one_line(error: BaseException) -> str:
    """Return the message of an error; of a file's error, what is wrong and which file."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def join_values(argv: Sequence[str]) -> list[str]:
    """Return the arguments with "--config.a.b=value" in place of "--config.a.b" and "value"."""
    joined: list[str] = []
    for arg in argv:
        before = joined[-1] if joined else ""
        if before.startswith("--config.") and "=" not in before and not arg.startswith("--"):
            joined[-1] = f"{before}={arg}"
        else:
            joined.append(arg)
    return joined
