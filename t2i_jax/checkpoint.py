"""Orbax behind one small door: save, restore with fall-back, and the frozen tree beside it. Nothing here reads a pickle."""

import contextlib
import copy
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint.checkpoint_managers import preservation_policy
from safetensors import safe_open
from safetensors.numpy import save_file

from t2i_jax.state import TrainState


class SaveError(OSError):
    """A checkpoint could not be written; those before it are whole."""


class Restored(NamedTuple):
    """What a checkpoint held: the state, the loop's own notes (JSON), its step, and what was passed over, a line each."""

    state: Any
    notes: dict
    step: int
    passed_over: list[str]


@contextlib.contextmanager
def open_manager(workdir) -> Iterator[ocp.CheckpointManager]:
    """Checkpoints of a run: asynchronous, atomic; keeps the last two and the one of the lowest validation loss."""
    logging.set_verbosity(logging.ERROR)  # Orbax reports every file it touches
    keep = [
        preservation_policy.LatestN(2),
        preservation_policy.BestN(get_metric_fn=_loss, reverse=True, n=1, keep_checkpoints_without_metrics=False),
    ]
    options = ocp.CheckpointManagerOptions(
        best_fn=_loss,
        best_mode="min",
        preservation_policy=preservation_policy.AnyPreservationPolicy(keep),
        cleanup_tmp_directories=True,
    )
    manager = ocp.CheckpointManager(_folder(workdir), options=options, item_names=("train", "ema", "notes"))
    try:
        yield manager
    except BaseException:
        with contextlib.suppress(Exception):  # closing waits for a save that may fail too; the first error is what counts
            manager.close()
        raise
    _write(manager.close)


def save(manager: ocp.CheckpointManager, state: TrainState, notes: dict, loss: float | None = None) -> None:
    """Start saving `state` at its own step; returns before it is on disk. `loss` (validation) ranks it for `best`.

    Raises SaveError if this or the save before it failed.
    """
    step = int(state.step)
    if step in manager.all_steps():
        return
    parts = ocp.args.Composite(
        train=ocp.args.StandardSave(_plain(state)),
        ema=ocp.args.StandardSave(state.ema),
        notes=ocp.args.JsonSave(copy.deepcopy(notes)),  # written later, by when the caller may have added to them
    )
    _write(lambda: manager.save(step, args=parts, metrics=None if loss is None else {"loss": loss}))


def wait(manager: ocp.CheckpointManager) -> None:
    """Return when everything is on disk. Raises SaveError if it could not be written."""
    _write(manager.wait_until_finished)


def restore(manager: ocp.CheckpointManager, abstract: TrainState, layout: Callable) -> Restored | None:
    """The newest checkpoint that can be read whole, or None if there is none at all.

    `abstract` is the state as shapes; layout(shapes) says where they are to be laid. A checkpoint that cannot be read is
    moved to `broken/` and the one before is tried; RuntimeError, listing the reasons, if there are some and none can be read.
    """
    steps, passed_over = sorted(manager.all_steps(), reverse=True), []
    for step in steps:
        parts = ocp.args.Composite(
            train=ocp.args.StandardRestore(layout(_plain(abstract))),
            ema=ocp.args.StandardRestore(layout(abstract.ema)),
            notes=ocp.args.JsonRestore(),
        )
        try:
            got = manager.restore(step, args=parts)
        except Exception as error:  # whatever a damaged file makes the libraries below raise
            passed_over.append(f"checkpoint {step} could not be read ({_first_line(error)})")
            continue
        for broken in steps[: steps.index(step)]:
            _set_aside(manager, broken)
        rng = jax.random.wrap_key_data(got.train["rng"])
        state = TrainState(**{**got.train, "ema": got.ema, "rng": rng})
        return Restored(state, got.notes, step, passed_over)
    if steps:
        raise RuntimeError(f"no checkpoint in {manager.directory} can be read:\n  " + "\n  ".join(passed_over))
    return None


def restore_ema(workdir, which: str = "last") -> tuple[dict, int]:
    """({"params", "extra"}, step) of a run's averaged weights; `which` is "last", "best" or a step.

    Raises FileNotFoundError if the run has no checkpoint, or not that one.
    """
    if not _folder(workdir).is_dir():
        raise FileNotFoundError(f"{workdir} has no checkpoints: train there first, or name the folder of a run")
    logging.set_verbosity(logging.ERROR)
    options = ocp.CheckpointManagerOptions(read_only=True, best_fn=_loss, best_mode="min")
    handlers = {"ema": ocp.StandardCheckpointHandler()}
    with ocp.CheckpointManager(_folder(workdir), options=options, item_handlers=handlers) as manager:
        steps = manager.all_steps()
        step = {"last": manager.latest_step(), "best": manager.best_step()}.get(which, which)
        if step is None or int(step) not in steps:
            raise FileNotFoundError(f"{workdir} has no checkpoint {which!r}; there are {', '.join(map(str, steps)) or 'none'}")
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shapes = manager.item_metadata(int(step)).ema
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
        got = manager.restore(int(step), args=ocp.args.Composite(ema=ocp.args.StandardRestore(shapes)))
        return got.ema, int(step)


def last_whole(workdir) -> int | None:
    """The step of the newest checkpoint that was written to its end, as the disk has it; None if there is none."""
    if not _folder(workdir).is_dir():
        return None
    with ocp.CheckpointManager(_folder(workdir), options=ocp.CheckpointManagerOptions(read_only=True)) as manager:
        return manager.latest_step()


def save_frozen(workdir, tree: dict) -> str:
    """Write a tree of arrays to `frozen/HASH.safetensors`, once; gives the hash (of names, types, shapes and bytes)."""
    flat = {name: np.ascontiguousarray(value) for name, value in flatten_dict(tree, sep="/").items()}
    name = tree_hash(tree)
    path = Path(workdir) / "frozen" / f"{name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        save_file(flat, temporary)
        temporary.replace(path)
    return name


def load_frozen(workdir, name: str) -> dict:
    """The tree that `save_frozen` wrote. Raises FileNotFoundError, or ValueError if its content is not what its name says."""
    path = Path(workdir) / "frozen" / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the run needs what was fitted before its training")
    with safe_open(path, "np") as file:
        tree = unflatten_dict({key: file.get_tensor(key) for key in file.keys()}, sep="/")  # noqa: SIM118
    if tree_hash(tree) != name:
        raise ValueError(f"{path} was changed: its content does not have the hash in its name")
    return tree


def tree_hash(tree) -> str:
    """Sixteen hex digits of the sha256 of a nested dict of arrays: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(flatten_dict(tree, sep="/").items()):
        value = np.ascontiguousarray(value)
        digest.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
    return digest.hexdigest()[:16]


def _write(action: Callable) -> None:
    try:
        action()
    except Exception as error:  # the libraries below raise many kinds for one full disk
        raise SaveError(_first_line(error)) from error


def _loss(metrics) -> float:
    return metrics["loss"]


def _folder(workdir) -> Path:
    return Path(workdir).resolve() / "checkpoints"


def _plain(state: TrainState) -> dict:
    """The state without the averages, which are an item of their own, and with the key as plain numbers."""
    rng = state.rng
    data = jax.eval_shape(jax.random.key_data, rng) if isinstance(rng, jax.ShapeDtypeStruct) else jax.random.key_data(rng)
    return {**state._asdict(), "rng": data, "ema": None}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _set_aside(manager: ocp.CheckpointManager, step: int) -> None:
    target = manager.directory.parent / "broken" / str(step)
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    shutil.move(manager.directory / str(step), target)
    manager.reload()
