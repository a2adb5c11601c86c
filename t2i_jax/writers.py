"""What a run reports, and where: a progress bar, metrics.jsonl, timing.jsonl, TensorBoard."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

from tensorboardX import SummaryWriter
from tqdm import tqdm

from t2i_jax.run_folder import write_whole


class Writers:
    """Opens the files of `workdir`, cut back to `step`: a resumed run writes again what it computes again.

    metrics.jsonl holds only what is the same in every repetition of the run; times go to timing.jsonl.
    """

    def __init__(self, workdir, step: int, steps: int, batch_size: int):
        self.folder, self.batch_size = Path(workdir), batch_size
        self.files = {}
        for name in ("metrics.jsonl", "timing.jsonl"):
            cut_back(self.folder / name, step)
            self.files[name] = open(self.folder / name, "a", encoding="utf-8")  # noqa: SIM115 (closed in `close`)
        self.tensorboard = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1, flush_secs=30)
        self.bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True, file=sys.stdout, mininterval=1.0)
        self.last = (step, time.monotonic())
        self.warned = set()

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of metrics.jsonl, and the same to TensorBoard."""
        self._line("metrics.jsonl", {"step": step, **values})
        for name, value in values.items():
            self.tensorboard.add_scalar(name, value, step)

    def progress(self, step: int, values: dict[str, float]) -> None:
        """`write`, and the speed since the last call; the bar shows both."""
        self.write(step, values)
        before, then = self.last
        self.last = (step, time.monotonic())
        speed = (step - before) * self.batch_size / max(self.last[1] - then, 1e-9)
        self._line("timing.jsonl", {"step": step, "images_per_second": round(speed, 2), "time": round(time.time(), 3)})
        shown = {name: f"{value:.4g}" for name, value in values.items() if name.endswith("loss")}
        self.bar.set_postfix({**shown, "img/s": f"{speed:.0f}"}, refresh=False)

    def warn(self, step: int, message: str) -> None:
        """Print what a person should know, when it is news."""
        if message and message not in self.warned:
            self.warned.add(message)
            self.bar.write(f"step {step:,}: {message}", file=sys.stdout)

    @contextlib.contextmanager
    def paused(self):
        """What is done inside does not count as time of training."""
        began = time.monotonic()
        yield
        step, then = self.last
        self.last = (step, then + time.monotonic() - began)

    def image(self, name: str, step: int, image) -> None:
        """A uint8 picture [H, W, 3] for TensorBoard."""
        self.tensorboard.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        """Everything written so far is on the disk when this returns."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Close everything; whatever was to be kept had been flushed, so that a full disk is no news here."""
        self.bar.close()
        for close in (*(file.close for file in self.files.values()), self.tensorboard.close):
            with contextlib.suppress(OSError):
                close()

    def _line(self, name: str, values: dict) -> None:
        self.files[name].write(json.dumps(values) + "\n")
        self.files[name].flush()


def cut_back(path: Path, step: int) -> None:
    """Drop the lines of a JSON-lines file after `step`, and a last line that was not written whole."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] > step:
                break
        except (json.JSONDecodeError, KeyError):
            break
        kept.append(line + "\n")
    write_whole(path, "".join(kept))
