"""Checkpoints by Orbax: save, and restore with fall-back to an older one. No pickle is read."""

import contextlib
import copy
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from t2i_jax.core import hosts
from t2i_jax.core.files import fingerprint, read_json, write_atomically
from t2i_jax.core.state import TrainState, checksum, is_finite
from t2i_jax.runs.bucket import checkpoint_folder, is_complete

# In the folder of a checkpoint whose evaluation is complete: {"loss": its validation loss or null}.
EVALUATION = "evaluation.json"
_checksum = jax.jit(checksum)


class SaveError(OSError):
    """A checkpoint could not be written; those before it are complete."""


class Restored(NamedTuple):
    """What a checkpoint held.

    notes: plain data (JSON) of the training loop.
    passed_over: a line for each newer checkpoint that could not be read.
    evaluated: whether the evaluation at this step was completed.
    """

    state: Any
    notes: dict
    step: int
    passed_over: list[str]
    evaluated: bool


class KeepBest(NamedTuple):
    """Keeps the checkpoint of the lowest validation loss: a PreservationPolicy of Orbax."""

    folder: Path | epath.Path

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Return, for each of the checkpoints, whether it stays."""
        best = _best(self.folder, [info.step for info in checkpoints])
        return [info.step == best for info in checkpoints]


@contextlib.contextmanager
def open_manager(workdir) -> Iterator[ocp.CheckpointManager]:
    """Open the checkpoints of a run. Saves are asynchronous and atomic.

    The last two checkpoints and the one of the lowest validation loss are kept.
    """
    _quiet()
    keep = [preservation_policy.LatestN(2), KeepBest(checkpoint_folder(workdir))]
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.AnyPreservationPolicy(keep),
        cleanup_tmp_directories=True,
    )
    manager = _open(workdir, options=options, item_names=("train", "ema", "notes"))
    try:
        yield manager
    except BaseException:
        with contextlib.suppress(
            Exception
        ):  # closing waits for a save that may fail too; the first error is what counts
            manager.close()
        raise
    _write(manager.close)


def save(manager: ocp.CheckpointManager, state: TrainState, notes: dict) -> None:
    """Start saving `state` at its own step. Returns before it is on disk.

    notes: plain data (JSON).
    Raises SaveError if this or the save before it failed.
    """
    step = int(state.step)
    if step in manager.all_steps():
        return
    train = _plain(state)
    sums = {"train": int(_checksum(train)), "ema": int(_checksum(state.ema))}
    # A copy: they are written later, by when the caller may have added to them.
    notes = copy.deepcopy({**notes, "checksums": sums})
    parts = ocp.args.Composite(
        train=ocp.args.StandardSave(train),
        ema=ocp.args.StandardSave(state.ema),
        notes=ocp.args.JsonSave(_seal(notes)),
    )
    _write(lambda: manager.save(step, args=parts))


def mark_evaluated(manager: ocp.CheckpointManager, step: int, loss: float | None) -> None:
    """Note in the checkpoint of `step`, if there is one, that its evaluation is complete.

    loss: the validation loss, by which `best` is chosen; None where it does not rank.
    Waits until the checkpoint is on disk. Raises SaveError if it could not be written.
    """
    if step in manager.all_steps():
        wait(manager)
        path = manager.directory / str(step) / EVALUATION
        _write(lambda: write_atomically(path, json.dumps(_seal({"loss": loss}))))


def wait(manager: ocp.CheckpointManager) -> None:
    """Wait until everything is on disk. Raises SaveError if it could not be written."""
    _write(manager.wait_until_finished)


def restore(
    manager: ocp.CheckpointManager, abstract: TrainState, layout: Callable
) -> Restored | None:
    """Restore the newest checkpoint that can be read completely, or None if there is none at all.

    abstract: the state as shapes.
    layout: (shapes) -> the same with a sharding each, where the arrays are to be placed.
    A checkpoint that cannot be read is moved to `broken/`, and the one before it is tried. Raises
    RuntimeError, listing the reasons, if there are checkpoints and none can be read.
    """
    steps, passed_over = sorted(manager.all_steps(), reverse=True), []
    for step in steps:
        parts = ocp.args.Composite(
            train=ocp.args.StandardRestore(layout(_plain(abstract))),
            ema=ocp.args.StandardRestore(layout(abstract.ema)),
            notes=ocp.args.JsonRestore(),
        )
        got: Any = None
        notes: Any = None
        try:
            got, why = manager.restore(step, args=parts), "another process could not read it"
            notes = _unseal(got.notes)
        except Exception as error:  # whatever a damaged file makes the libraries below raise
            why = _first_line(error)
        if hosts.any_of(notes is None):
            passed_over.append(f"checkpoint {step} could not be read ({why})")
            continue
        sums = notes.pop("checksums", {})
        if _differs(sums, "train", got.train) or _differs(sums, "ema", got.ema):
            passed_over.append(f"checkpoint {step} does not hold the numbers that were saved")
            continue
        rng = jax.random.wrap_key_data(got.train["rng"])
        state = TrainState(**{**got.train, "ema": got.ema, "rng": rng})
        if not jax.jit(is_finite)(state):
            passed_over.append(f"checkpoint {step} holds numbers that are not finite")
            continue
        for broken in steps[: steps.index(step)]:
            _set_aside(manager, broken)
        evaluated = read_evaluation(manager.directory / str(step)) is not None
        return Restored(state, notes, step, passed_over, evaluated)
    if steps:
        raise RuntimeError(
            f"no checkpoint in {manager.directory} can be read:\n  " + "\n  ".join(passed_over)
        )
    return None


def restore_ema(workdir, which: str | int = "last") -> tuple[dict, int]:
    """Restore a run's averaged weights. Returns ({"params", "extra"}, step).

    which: "last", "best" (lowest validation loss) or a step.
    Raises FileNotFoundError if the run has no checkpoint, or not that one, ValueError if it is
    damaged.
    """
    if not checkpoint_folder(workdir).is_dir():
        raise FileNotFoundError(
            f"{workdir} has no checkpoints: train there first, or name the folder of a run"
        )
    _quiet()
    options = ocp.CheckpointManagerOptions(read_only=True)
    handlers = {"ema": ocp.StandardCheckpointHandler(), "notes": ocp.JsonCheckpointHandler()}
    with _open(workdir, options=options, item_handlers=handlers) as manager:
        steps = manager.all_steps()
        named = {"last": manager.latest_step(), "best": _best(checkpoint_folder(workdir), steps)}
        step = next((s for s in steps if str(s) == str(named.get(str(which), which))), None)
        if step is None:
            known = ", ".join(map(str, steps)) or "none"
            raise FileNotFoundError(f"{workdir} has no checkpoint {which!r}; there are {known}")
        try:
            return _read_ema(manager, step), step
        except Exception as error:  # whatever a damaged file makes the libraries below raise
            known = ", ".join(map(str, steps))
            raise ValueError(
                f"{checkpoint_folder(workdir) / str(step)} is damaged ({_first_line(error)}): "
                f"choose another checkpoint; there are {known}"
            ) from error


def _read_ema(manager: ocp.CheckpointManager, step: int) -> dict:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    found: Any = manager.item_metadata(step)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), found.ema
    )
    parts = ocp.args.Composite(ema=ocp.args.StandardRestore(shapes), notes=ocp.args.JsonRestore())
    restored: Any = manager.restore(step, args=parts)
    if _differs(_unseal(restored.notes).get("checksums", {}), "ema", restored.ema):
        raise ValueError("it does not hold the numbers that were saved")
    return restored.ema


def read_evaluation(folder: Path | epath.Path) -> dict | None:
    """Return {"loss": number or None} of a checkpoint's folder, or None if it is not evaluated.

    An evaluation that cannot be read counts as none.
    """
    for name in (EVALUATION, "metrics/metrics"):  # the second: of runs before 0.2
        with contextlib.suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
            found = _unseal(json.loads((folder / name).read_text(encoding="utf-8")))
            loss = found["loss"]
            return {"loss": None if loss is None else float(loss)}
    return None


def _best(folder: Path | epath.Path, steps: Sequence[int]) -> int | None:
    """Return the step of the lowest validation loss, or None if no checkpoint has one."""
    found = {step: (read_evaluation(folder / str(step)) or {}).get("loss") for step in steps}
    losses = {step: loss for step, loss in found.items() if loss is not None}
    return min(losses, key=lambda step: (losses[step], -step), default=None)


def _seal(content: dict) -> dict:
    """Return plain data (JSON) with its own hash."""
    return {**content, "hash": fingerprint(json.dumps(content, sort_keys=True))}


def _unseal(sealed: dict) -> dict:
    """Return what `_seal` was given. Raises ValueError if it is damaged."""
    if not isinstance(sealed, dict):
        raise ValueError("its notes are no object")
    content = {name: value for name, value in sealed.items() if name != "hash"}
    if sealed.get("hash", _seal(content)["hash"]) != _seal(content)["hash"]:  # none before 0.2
        raise ValueError("its notes are not those that were saved")
    return content


def _differs(sums: dict, item: str, tree) -> bool:
    """Return whether a restored item is not what was saved. Checkpoints before 0.2 cannot tell."""
    return item in sums and sums[item] != int(_checksum(tree))


def last_complete_step(workdir) -> int | None:
    """Return the step of the newest complete checkpoint on disk, or None if there is none."""
    folder = checkpoint_folder(workdir)
    if not folder.is_dir():
        return None
    # Opening Orbax's manager would need all processes.
    return max((int(path.name) for path in folder.iterdir() if is_complete(path)), default=None)


def _open(workdir, **settings) -> ocp.CheckpointManager:
    """Open Orbax's manager of a run's checkpoints.

    Raises ValueError, naming the file, for a damaged loss in a checkpoint before 0.2: Orbax reads
    them all.
    """
    folder = checkpoint_folder(workdir)
    for path in folder.glob("*/metrics/metrics"):
        read_json(path)
    return ocp.CheckpointManager(folder, **settings)


@functools.cache
def _quiet() -> None:
    """Let Orbax print nothing, nor the threads that it leaves behind when something has failed.

    They would print hundreds of lines; the cause is raised by itself.
    """
    logging.set_verbosity(logging.FATAL)  # Orbax reports every file, and what it raises too
    show = sys.unraisablehook

    def show_others(about):
        if str(about.exc_value) != "Event loop is closed":
            show(about)

    sys.unraisablehook = show_others


def _write(action: Callable) -> None:
    try:
        action()
    except Exception as error:  # the libraries below raise many kinds for one full disk
        code = re.search(r"os_error_code='(\d+)'", str(error))
        raise SaveError(os.strerror(int(code[1])) if code else _first_line(error)) from error


def _plain(state: TrainState) -> dict:
    """The state with its key as plain numbers, and without the averages, an item of their own."""
    rng = state.rng
    data = (
        jax.eval_shape(jax.random.key_data, rng)
        if isinstance(rng, jax.ShapeDtypeStruct)
        else jax.random.key_data(rng)
    )
    return {**state._asdict(), "rng": data, "ema": None}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _set_aside(manager: ocp.CheckpointManager, step: int) -> None:
    target = manager.directory.parent / "broken" / str(step)
    if hosts.is_first():
        target.rmtree(missing_ok=True)
        target.parent.mkdir(exist_ok=True)
        (manager.directory / str(step)).rename(target)
    hosts.wait(f"broken {step}")
    manager.reload()
