"""Checkpoints by Orbax: save, and restore with fall-back to an older one. No pickle is read."""

import contextlib
import copy
import functools
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from t2i_jax.core import hosts
from t2i_jax.core.state import TrainState, is_finite


class SaveError(OSError):
    """A checkpoint could not be written; those before it are complete."""


class Restored(NamedTuple):
    """What a checkpoint held.

    notes: plain data (JSON) of the training loop.
    passed_over: a line for each newer checkpoint that could not be read.
    """

    state: Any
    notes: dict
    step: int
    passed_over: list[str]


@contextlib.contextmanager
def open_manager(workdir) -> Iterator[ocp.CheckpointManager]:
    """Open the checkpoints of a run. Saves are asynchronous and atomic.

    The last two checkpoints and the one of the lowest validation loss are kept.
    """
    _quiet()
    keep = [
        preservation_policy.LatestN(2),
        preservation_policy.BestN(
            get_metric_fn=_loss, reverse=True, n=1, keep_checkpoints_without_metrics=False
        ),
    ]
    options = ocp.CheckpointManagerOptions(
        best_fn=_loss,
        best_mode="min",
        preservation_policy=preservation_policy.AnyPreservationPolicy(keep),
        cleanup_tmp_directories=True,
    )
    manager = ocp.CheckpointManager(
        _folder(workdir), options=options, item_names=("train", "ema", "notes")
    )
    try:
        yield manager
    except BaseException:
        with contextlib.suppress(
            Exception
        ):  # closing waits for a save that may fail too; the first error is what counts
            manager.close()
        raise
    _write(manager.close)


def save(
    manager: ocp.CheckpointManager, state: TrainState, notes: dict, loss: float | None = None
) -> None:
    """Start saving `state` at its own step. Returns before it is on disk.

    loss: the validation loss, by which `best` is chosen.
    Raises SaveError if this or the save before it failed.
    """
    step = int(state.step)
    if step in manager.all_steps():
        return
    parts = ocp.args.Composite(
        train=ocp.args.StandardSave(_plain(state)),
        ema=ocp.args.StandardSave(state.ema),
        notes=ocp.args.JsonSave(
            copy.deepcopy(notes)
        ),  # written later, by when the caller may have added to them
    )
    _write(lambda: manager.save(step, args=parts, metrics=None if loss is None else {"loss": loss}))


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
        try:
            got, why = manager.restore(step, args=parts), "another process could not read it"
        except Exception as error:  # whatever a damaged file makes the libraries below raise
            why = _first_line(error)
        if hosts.any_of(got is None):
            passed_over.append(f"checkpoint {step} could not be read ({why})")
            continue
        rng = jax.random.wrap_key_data(got.train["rng"])
        state = TrainState(**{**got.train, "ema": got.ema, "rng": rng})
        if not jax.jit(is_finite)(state):
            passed_over.append(f"checkpoint {step} holds numbers that are not finite")
            continue
        for broken in steps[: steps.index(step)]:
            _set_aside(manager, broken)
        return Restored(state, got.notes, step, passed_over)
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
    if not _folder(workdir).is_dir():
        raise FileNotFoundError(
            f"{workdir} has no checkpoints: train there first, or name the folder of a run"
        )
    _quiet()
    options = ocp.CheckpointManagerOptions(read_only=True, best_fn=_loss, best_mode="min")
    handlers = {"ema": ocp.StandardCheckpointHandler()}
    with ocp.CheckpointManager(
        _folder(workdir), options=options, item_handlers=handlers
    ) as manager:
        steps = manager.all_steps()
        named = {"last": manager.latest_step(), "best": manager.best_step()}
        step = next((s for s in steps if str(s) == str(named.get(str(which), which))), None)
        if step is None:
            known = ", ".join(map(str, steps)) or "none"
            raise FileNotFoundError(f"{workdir} has no checkpoint {which!r}; there are {known}")
        try:
            return _read_ema(manager, step), step
        except Exception as error:  # whatever a damaged file makes the libraries below raise
            known = ", ".join(map(str, steps))
            raise ValueError(
                f"{_folder(workdir) / str(step)} is damaged ({_first_line(error)}): choose another "
                f"checkpoint; there are {known}"
            ) from error


def _read_ema(manager: ocp.CheckpointManager, step: int) -> dict:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    found: Any = manager.item_metadata(step)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), found.ema
    )
    parts = ocp.args.Composite(ema=ocp.args.StandardRestore(shapes))
    restored: Any = manager.restore(step, args=parts)
    return restored.ema


def last_complete_step(workdir) -> int | None:
    """Return the step of the newest complete checkpoint on disk, or None if there is none."""
    if not _folder(workdir).is_dir():
        return None
    with ocp.CheckpointManager(
        _folder(workdir), options=ocp.CheckpointManagerOptions(read_only=True)
    ) as manager:
        return manager.latest_step()


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


def _loss(metrics) -> float:
    return metrics["loss"]


def _folder(workdir) -> Path:
    return Path(workdir).resolve() / "checkpoints"


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
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        shutil.move(manager.directory / str(step), target)
    hosts.wait(f"broken {step}")
    manager.reload()
