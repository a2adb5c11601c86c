"""What training restores if one file of the newest checkpoint is damaged: each file, each way."""

import contextlib
import io
import shutil
from collections.abc import Mapping
from pathlib import Path

import jax

from scripts.same_run import named, same_bits
from t2i_jax import config as configs
from t2i_jax.runs import checkpoint
from t2i_jax.runs.prepare import prepare_run
from t2i_jax.training import parallel
from t2i_jax.training.programs import make_programs
from t2i_jax.training.start import begin

ROOT = Path(__file__).parent.parent
DAMAGES = ("truncated", "flipped", "deleted")


def files_of(workdir: Path) -> list[str]:
    """Return the files of the newest checkpoint, as paths inside the run folder."""
    folder = workdir / "checkpoints"
    last = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    inside = sorted(path for path in (folder / str(last)).rglob("*") if path.is_file())
    return [str(path.relative_to(workdir)) for path in inside]


def damage(path: Path, how: str) -> None:
    """Cut a file in half, flip a bit in its middle, or delete it."""
    content = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif content:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def restore_damaged(workdir: Path, copy: Path, settings: Mapping) -> dict[tuple[str, str], str]:
    """Return {(file, damage): how restoring ended}, of each file of the newest checkpoint.

    copy: a folder for the damaged copies of the run `workdir`.
    settings: the overrides of the run's config, configs/shapes.py:smoke.
    A silent difference, or an error of more than a line, begins with BAD.
    """
    overrides = [f"{key}={value}" for key, value in settings.items()]
    config = configs.load(f"{ROOT}/configs/shapes.py:smoke", overrides)
    place = parallel.make(config.parallel)
    shutil.copytree(workdir, copy)
    prepared = prepare_run(config, copy)
    create = make_programs(prepared, place).create

    def restored():
        """Return (step, arrays of the state, whether it is evaluated, what was printed)."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), checkpoint.open_manager(copy) as manager:
            begun = begin(prepared, manager, create, place)
        state = begun.state._replace(rng=jax.random.key_data(begun.state.rng))
        return begun.step, named("", state), begun.evaluated, printed.getvalue()

    def ended(file: str, how: str) -> str:
        shutil.rmtree(copy)
        shutil.copytree(workdir, copy)
        damage(copy / file, how)
        try:
            step, found, evaluated, line = restored()
        except (ValueError, RuntimeError) as error:
            text = str(error)
            return f"refused with a line: {text}" if "\n" not in text else f"BAD: {text}"
        except Exception as error:
            return f"BAD: {type(error).__name__}: {error}"
        if step not in whole:
            return f"BAD: step {step}"
        if not all(same_bits(found[name], whole[step][name]) for name in whole[step]):
            return f"BAD: a silent difference at step {step}"
        if step == newest:
            return "the same step" if evaluated else "the same step, evaluated again"
        return "the step before, with a line" if line else "the step before"

    newest, state, _, _ = restored()
    whole = {newest: state}
    shutil.rmtree(copy / "checkpoints" / str(newest))
    before, state, _, _ = restored()
    whole[before] = state
    files = files_of(workdir)
    found = {(file, how): ended(file, how) for how in DAMAGES for file in files}
    prepared.lock.close()
    return found
