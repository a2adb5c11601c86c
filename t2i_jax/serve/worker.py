"""One model, many requests: they wait in line, and one is computed at a time."""

import threading
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from t2i_jax.pipeline import Pipeline

MAX_WAITING = 32  # requests, with the one that is computed
MAX_PROMPT = 2_000  # characters
MAX_PICTURES = 16  # of one request
MAX_SIDE = 2_048  # pixels

Result = TypeVar("Result")


class Busy(Exception):
    """Too many requests wait already."""


class Worker:
    """A pipeline that serves several threads.

    pipe: draws; nothing else may use it.
    """

    def __init__(self, pipe: Pipeline, max_waiting: int = MAX_WAITING):
        self.pipe = pipe
        self._places = threading.BoundedSemaphore(max_waiting)
        self._turn = threading.Lock()
        self._max_waiting = max_waiting

    def run(self, task: Callable[[Pipeline], Result]) -> tuple[Result, list[str]]:
        """Return (task(pipeline), its warnings), once all requests before are done.

        Raises Busy at once if too many wait.
        """
        if not self._places.acquire(blocking=False):
            raise Busy(f"{self._max_waiting} requests wait already: try again later")
        try:
            with self._turn, warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always", UserWarning)
                result = task(self.pipe)
            return result, [str(each.message) for each in told if each.category is UserWarning]
        finally:
            self._places.release()


def check_request(prompts: list[str], num: int, settings: dict[str, Any]) -> None:
    """Raise ValueError, saying what is allowed, for a request that is too large."""
    for prompt in prompts:
        if len(prompt) > MAX_PROMPT:
            raise ValueError(
                f"a prompt of {len(prompt):,} characters: at most {MAX_PROMPT:,} are allowed"
            )
    if not 1 <= num <= MAX_PICTURES:
        raise ValueError(f"{num} pictures: a request can have 1 to {MAX_PICTURES}")
    for name in ("width", "height"):
        if settings.get(name, 0) > MAX_SIDE:
            raise ValueError(f"{name} is {settings[name]}: at most {MAX_SIDE:,} pixels are allowed")
