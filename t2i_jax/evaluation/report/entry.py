"""One model of a comparison: everything the report needs, read from its folders."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from t2i_jax.metrics.diversity import convergence


class Entry(NamedTuple):
    """One model of a comparison.

    metrics: its metrics.json, and "minutes" of training.
    curves: {metric: [(minutes of training, value), ...]}.
    pictures: {"drawn", "true"}, uint8 [N, H, W, 3].
    convergence: of its training loss, see metrics/diversity.py.
    """

    name: str
    metrics: dict
    curves: dict[str, list[tuple[float, float]]]
    pictures: dict[str, np.ndarray]
    convergence: dict


def read_entry(name: str, workdir, measured) -> Entry:
    """Read a run folder `workdir` and the folder `measured` of its evaluation."""
    metrics = json.loads((Path(measured) / "metrics.json").read_text(encoding="utf-8"))
    with np.load(Path(measured) / "pictures.npz", allow_pickle=False) as file:
        pictures = {key: file[key] for key in ("drawn", "true")}
    timing = read_lines(Path(workdir) / "timing.jsonl", ("step", "images_per_second"))
    lines = read_lines(Path(workdir) / "metrics.jsonl", ("step",))
    losses = {line["step"]: loss for line in lines if (loss := training_loss(line)) is not None}
    clock = minutes_of(timing, metrics["setting"]["config"]["train"]["batch_size"])
    metrics["minutes"] = clock(timing[-1]["step"])
    trend = convergence(list(losses), list(losses.values()))
    return Entry(name, metrics, curves_of(lines, clock), pictures, trend)


def minutes_of(timing: Sequence[dict], batch_size: int) -> Callable[[int], float]:
    """Return a function from a step to the minutes that training steps took until then.

    Compiling the first step is included, pauses between two starts of a run are not.
    timing: the lines of a run's timing.jsonl.
    """
    steps = [0] + [line["step"] for line in timing]
    speeds = np.maximum([line["images_per_second"] for line in timing], 1e-9)
    seconds = np.diff(steps) * batch_size / speeds
    minutes = np.concatenate([[0], np.cumsum(seconds) / 60])
    return lambda step: float(np.interp(step, steps, minutes))


def curves_of(
    lines: Sequence[dict], clock: Callable[[int], float]
) -> dict[str, list[tuple[float, float]]]:
    """Return {metric: [(minutes, value), ...]} of the scores and validation losses of a run.

    lines: of its metrics.jsonl.   clock: of `minutes_of`.
    """
    curves: dict[str, list] = {}
    for line in lines:
        for key, value in line.items():
            if key.startswith(("score/", "validation/")):
                curves.setdefault(key, []).append((clock(line["step"]), value))
    return curves


def training_loss(line: dict) -> float | None:
    """Return the sum of the losses of all players in a line of metrics.jsonl, or None.

    They are called "loss", or "generator/loss" and so on; "caption_loss" is only a part of one.
    """
    training = {name: value for name, value in line.items() if not name.startswith("validation/")}
    losses = [value for name, value in training.items() if name.rpartition("/")[2] == "loss"]
    return sum(losses) if losses else None


def read_lines(path: Path, needs: Sequence[str]) -> list[dict]:
    """Read a file of a JSON object of numbers a line.

    Raises FileNotFoundError if it is missing, and ValueError, naming file and line, if it is empty,
    or if a line is damaged or lacks one of `needs`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: training writes it; put it back")
    lines = []
    for number, text in enumerate(path.read_bytes().splitlines(), 1):
        try:
            line = json.loads(text)
            good = all(type(value) in (int, float) for value in line.values())
            good = good and all(name in line for name in needs)
        except (ValueError, AttributeError, RecursionError):
            good = False
        if not good:
            raise ValueError(f"{path}, line {number} is damaged: delete this line")
        lines.append(line)
    if not lines:
        raise ValueError(f"{path} is empty: put back what training wrote")
    return lines
