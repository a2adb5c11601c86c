"""Say which host hangs, and in what, when a training makes no progress."""

import contextlib
import faulthandler
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax


class Watchdog:
    """A thread that prints a message when the stage of a training lasts too long.

    It names the process, its host and the stage, and prints what each thread is doing. It does so
    once for a stage, and ends nothing: a slow disk is no error.

    limit_s: seconds that a stage may last; 0 for no watchdog.
    """

    def __init__(self, limit_s: float):
        self.limit_s, self.stage, self.since = limit_s, "", time.monotonic()
        self.closed, self.told = threading.Event(), ""
        if limit_s:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def enter(self, stage: str) -> None:
        """Note that `stage` begins. It lasts until the next one."""
        self.stage, self.since = stage, time.monotonic()

    @contextlib.contextmanager
    def inside(self, stage: str) -> Iterator[None]:
        """Note that `stage` lasts as long as the `with` block, and that the one before goes on."""
        before = self.stage
        self.enter(stage)
        try:
            yield
        finally:
            self.enter(before)

    def close(self) -> None:
        """End the thread."""
        self.closed.set()

    def _watch(self) -> None:
        while not self.closed.wait(min(self.limit_s / 4, 10.0)):
            stage, lasted = self.stage, time.monotonic() - self.since
            if stage and lasted > self.limit_s and stage != self.told:
                self.told = stage
                print(
                    f"train: process {jax.process_index()} of {jax.process_count()} on "
                    f"{socket.gethostname()} has been at {stage} for {lasted:,.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
