"""A run without its training, to share: one file of weights in place of checkpoints.

The folder has run.json, tokenizer.json, frozen/, README.md and model.safetensors. Every command
takes it as it takes a run, but for training in it: another run starts from it with `init_from`.
"""

import json
import shutil
from pathlib import Path

from t2i_jax.core.files import empty_folder, write_atomically
from t2i_jax.runs.frozen import read_tree, save_frozen, tree_hash, write_tree
from t2i_jax.runs.model_card import NAME as CARD
from t2i_jax.runs.model_card import renamed

WEIGHTS = "model.safetensors"


def write_exported(run: dict, ema: dict, frozen: dict, step: int, workdir: Path, target) -> Path:
    """Write a run to the folder `target`, which may not exist yet, and return it.

    run: its run.json.   ema: {"params", "extra"}.   frozen: as `load_frozen` reads it.
    step: of `ema`.   workdir: the run's folder, for its tokenizer and card.
    Raises FileExistsError if the folder is not empty.
    """
    folder = empty_folder(target, "--to")
    folder.mkdir(parents=True, exist_ok=True)
    write_tree(folder / WEIGHTS, ema)
    frozen_hash = save_frozen(folder, frozen)
    shutil.copyfile(workdir / "tokenizer.json", folder / "tokenizer.json")
    if (workdir / CARD).is_file():
        text = (workdir / CARD).read_text(encoding="utf-8")
        names = (path.absolute().name for path in (workdir, folder))
        write_atomically(folder / CARD, renamed(text, *names))
    # Frozen parts that were quantised have another hash than those of the run.
    about = {**run, "frozen": frozen_hash, "weights": tree_hash(ema), "step": step}
    # Last: a folder with run.json is a complete run.
    write_atomically(folder / "run.json", json.dumps(about, indent=1, sort_keys=True))
    return folder


def read_exported(workdir: Path, run: dict, which: str | int) -> tuple[dict, int]:
    """Return ({"params", "extra"}, step) of an exported run. `which`: "last", "best" or its step.

    Raises FileNotFoundError if there are no weights or no such checkpoint, and ValueError if they
    are not those that were exported.
    """
    path, step = workdir / WEIGHTS, run["step"]
    if str(which) not in ("last", "best", str(step)):
        raise FileNotFoundError(f"{workdir} is the export of step {step} alone, and not of {which}")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: export the run again")
    return read_tree(path, run["weights"]), step
