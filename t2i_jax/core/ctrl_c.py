"""Ctrl-C in a process of its own, also where a library loses it.

An exception cannot leave a callback of XLA's C++ code or of Python's garbage collector as it is: it
comes out as another error, or not at all. So the handler notes that Ctrl-C was pressed.
"""

import os
import signal
import sys
import threading

_pressed = threading.Event()


def leave_at_once(*_) -> None:
    """Handle Ctrl-C while modules are imported: an exception would crash their C++ code."""
    say_stopped(sys.argv[1] if sys.argv[1:] else "main.py")
    os._exit(128 + signal.SIGINT)


def interrupt(*_) -> None:
    """Handle Ctrl-C as Python does, and note it for `raise_lost`.

    While JAX is imported, which a command does where it needs it first, it leaves at once.
    """
    if "jax" in sys.modules and "jax.numpy" not in sys.modules:
        leave_at_once()
    _pressed.set()
    raise KeyboardInterrupt


def raise_lost() -> None:
    """Raise KeyboardInterrupt if `interrupt` did so before and it did not arrive."""
    if _pressed.is_set():
        raise KeyboardInterrupt


def press_again(unraisable) -> None:
    """Send Ctrl-C once more if Python lost it: what a callback of its garbage collector raises."""
    if unraisable.exc_type is not KeyboardInterrupt:
        return sys.__unraisablehook__(unraisable)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()


def say_stopped(command: str) -> None:
    """Print that Ctrl-C stopped `command`. A terminal shows "^C" first: begin a new line there."""
    before = "\n" if sys.stderr.isatty() else ""
    print(f"{before}{command}: stopped by Ctrl-C", file=sys.stderr, flush=True)
