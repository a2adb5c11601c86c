"""What a run reports: a progress bar, metrics.jsonl, timing.jsonl, and to its trackers."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from t2i_jax.core.files import write_atomically
from t2i_jax.training.trackers import Tracker

EVALUATED = ("validation/", "score/")  # how names of what an evaluation finds begin


class Writers:
    """The files that a run writes while it trains.

    They are cut back to `step` when opened: a resumed run writes again what it computes again.
    evaluated: whether the evaluation of that step stays.
    trackers: where else the numbers and pictures go. They are closed with the files.
    metrics.jsonl holds only what is the same in every repetition of the run. Times go to
    timing.jsonl.
    """

    def __init__(
        self,
        workdir,
        step: int,
        steps: int,
        batch_size: int,
        evaluated: bool = True,
        trackers: Sequence[Tracker] = (),
    ):
        self.folder, self.batch_size, self.trackers = Path(workdir), batch_size, trackers
        self.files = {}
        for name in ("metrics.jsonl", "timing.jsonl"):
            cut_back(self.folder / name, step, evaluated)
            self.files[name] = open(self.folder / name, "a", encoding="utf-8")  # noqa: SIM115 (closed in `close`)
        self.steps = steps
        self.interactive = sys.stdout.isatty() or type(sys.stdout).__module__.startswith(
            "ipykernel"
        )
        self.bar = tqdm(
            total=steps,
            initial=step,
            unit="step",
            dynamic_ncols=True,
            file=sys.stdout,
            mininterval=1.0,
            disable=not self.interactive,
        )
        self.last = (step, time.monotonic())
        self.warned = set()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write a line of metrics.jsonl, and the same to the trackers."""
        self._line("metrics.jsonl", {"step": step, **values})
        for tracker in self.trackers:
            tracker.scalars(step, values)

    def progress(self, step: int, values: dict[str, float]) -> None:
        """Write values and the speed since the last call; the bar shows both."""
        self.write(step, values)
        before, then = self.last
        self.last = (step, time.monotonic())
        speed = (step - before) * self.batch_size / max(self.last[1] - then, 1e-9)
        self._line(
            "timing.jsonl",
            {"step": step, "images_per_second": round(speed, 2), "time": round(time.time(), 3)},
        )
        shown = {name: f"{value:.4g}" for name, value in values.items() if name.endswith("loss")}
        shown["img/s"] = f"{speed:.0f}"
        self.bar.set_postfix(shown, refresh=False)
        if not self.interactive:  # a log file: a line now and then
            told = ", ".join(f"{name} {value}" for name, value in shown.items())
            print(f"step {step:,} of {self.steps:,}: {told}", flush=True)

    def warn(self, step: int, message: str) -> None:
        """Print a warning, the first time it is given. "" is none."""
        if message and message not in self.warned:
            self.warned.add(message)
            self.bar.write(f"step {step:,}: {message}", file=sys.stdout)

    @contextlib.contextmanager
    def paused(self):
        """Do not count the time spent inside as training."""
        began = time.monotonic()
        yield
        step, then = self.last
        self.last = (step, then + time.monotonic() - began)

    def image(self, name: str, step: int, image) -> None:
        """Give a uint8 picture [H, W, 3] to the trackers."""
        for tracker in self.trackers:
            tracker.image(name, step, image)

    def flush(self) -> None:
        """Wait until everything written so far is on disk."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Close all files. Errors are ignored: everything important was flushed earlier."""
        self.bar.close()
        for each in (*self.files.values(), *self.trackers):
            with contextlib.suppress(OSError):
                each.close()

    def _line(self, name: str, values: dict) -> None:
        self.files[name].write(json.dumps(values) + "\n")
        self.files[name].flush()


class NoWriters:
    """What the other processes of a training have in place of `Writers`: it writes nothing."""

    bar = tqdm(disable=True)
    paused = contextlib.nullcontext

    def write(self, step: int, values: dict[str, float]) -> None:
        """Do nothing."""

    def image(self, name: str, step: int, image) -> None:
        """Do nothing."""

    def progress(self, step: int, values: dict[str, float]) -> None:
        """Do nothing."""

    def warn(self, step: int, message: str) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def cut_back(path: Path, step: int, evaluated: bool = True) -> None:
    """Drop the lines of a JSON-lines file after `step`, and those that cannot be read.

    They are told, except for the last line, which is incomplete if the process was killed.
    evaluated: whether the validation losses and scores of `step` stay.
    """
    if not path.exists():
        return
    kept, lines = [], path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if row["step"] > step:
                break
        except (ValueError, KeyError, TypeError, RecursionError):
            if number < len(lines):
                print(f"{path}, line {number} is damaged: it was left out")
            continue
        if evaluated or row["step"] < step or not any(n.startswith(EVALUATED) for n in row):
            kept.append(line + "\n")
    write_atomically(path, "".join(kept))
