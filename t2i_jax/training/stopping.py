"""How training ends early: the error that says why, and the signals that ask for it."""

import contextlib
import signal
from collections.abc import Callable, Iterator

from t2i_jax.core import ctrl_c


class Stopped(RuntimeError):
    """Training ended early; the message says why and what to do.

    exit_code: of the process: 1, or 128 and the number of the signal that stopped it.
    """

    exit_code = 1

    @classmethod
    def by(cls, name: str, message: str) -> "Stopped":
        """Return the error for a signal, "SIGINT"."""
        error = cls(f"{name}: {message}")
        error.exit_code = 128 + signal.Signals[name]
        return error


def catch_signals() -> tuple[list[str], Callable[[], None]]:
    """Catch SIGTERM and Ctrl-C until the returned function is called.

    Returns (a list that gets the name of each signal, a function that restores the former
    handlers). The first signal asks the loop to save and stop, the second warns, the third stops at
    once. Raises KeyboardInterrupt if Ctrl-C came before and was lost.
    """
    ctrl_c.raise_lost()
    stop: list[str] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number, frame):
        name = signal.Signals(number).name
        stop.append(name)
        if len(stop) == 1:
            print(f"\n{name}: stopping as soon as this step is saved", flush=True)
            return
        print(f"\n{name}: once more stops at once, and loses what is not saved", flush=True)
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)

    def release():
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, note)
    return stop, release


class _Ended(BaseException):
    """A signal came in a block of `end_early`."""


@contextlib.contextmanager
def end_early() -> Iterator[Callable]:
    """End the `with` block as soon as a signal comes. `catch_signals` gets the signal too.

    For work that can be done again, such as an evaluation.

    Yields a function: what is in `with whole():` is not ended in the middle, but after it. Whatever
    other threads wait for has to be whole: an exception between two lines of a queue or of a lock
    can leave them waiting for ever.
    """
    noting = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    is_whole = came = False

    def end(number, frame):
        nonlocal came
        came, note = True, noting[number]
        if callable(note):
            note(number, frame)
        if not is_whole:
            raise _Ended

    @contextlib.contextmanager
    def whole() -> Iterator[None]:
        nonlocal is_whole
        is_whole = True
        try:
            yield
        finally:
            is_whole = False
        if came:
            raise _Ended

    try:
        try:
            for number in noting:
                signal.signal(number, end)
            yield whole
        finally:
            for number, handler in noting.items():
                signal.signal(number, handler)
    except _Ended:
        pass
