"""What lies in a run's folder: run.json, tokenizer.json, frozen/, and its weights.

Wherever a folder is asked for, "NAME" is also the model t2i_jax/published/NAME, which comes with
the project, and "gs://BUCKET/NAME" a folder in a bucket (runs/bucket.py).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from t2i_jax import config as configs
from t2i_jax.core.family import Frozen, Variables
from t2i_jax.core.files import file_hash, fingerprint
from t2i_jax.core.settings import flatten
from t2i_jax.families.lora import merged
from t2i_jax.runs import checkpoint
from t2i_jax.runs.bucket import local_folder
from t2i_jax.runs.exported import read_exported, write_exported
from t2i_jax.runs.frozen import load_frozen, tree_hash
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.encoder import make_encoder
from t2i_jax.weights.quantized import KINDS, widen_tree

PUBLISHED = Path(__file__).parent.parent / "published"
# What may differ between the commands that start and resume a run: it changes no number.
FREE = (
    *("sample.", "edit.", "inpaint.", "reranker.", "caption.", "translate.", "evaluate."),
    *("prior.", "vary.", "stylize.", "upscale."),
    *("parallel.", "train.save_every", "train.reader", "train.trackers", "model.scan"),
)
# What can be set when a trained run is used: how it draws and is measured, and where its data is.
CHANGEABLE = (
    *("sample.", "edit.", "inpaint.", "caption.", "translate.", "evaluate.", "reranker."),
    *("prior.", "vary.", "stylize.", "upscale.", "data.path", "lora.add", "text.add"),
)


def locate(workdir) -> Path:
    """Return the folder of a run on this machine: `workdir`, or that of a published model."""
    folder = local_folder(workdir)
    inside = PUBLISHED / folder.name
    is_name = str(workdir) == inside.name and not (folder / "run.json").is_file()
    return inside if is_name and (inside / "run.json").is_file() else folder


def published_names() -> list[str]:
    """Return the names of the models that come with the project."""
    return sorted(path.parent.name for path in PUBLISHED.glob("*/run.json"))


def is_run(path) -> bool:
    """Return whether `path` is the folder of a run."""
    return (locate(path) / "run.json").is_file()


def read_run(workdir) -> dict:
    """Read a run's `run.json`: its config, and the hashes of its data, tokenizer and frozen arrays.

    Raises FileNotFoundError if `workdir` is not a run folder, ValueError if run.json is damaged.
    """
    if not is_run(workdir):
        known = ", ".join(published_names())
        others = f"; the models that come with the project are {known}" if known else ""
        raise FileNotFoundError(
            f"{workdir} is not a run folder: it has no run.json (train with --workdir={workdir} "
            f"first){others}"
        )
    path = locate(workdir) / "run.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        known = all(isinstance(run[name], str) for name in ("data", "tokenizer", "frozen"))
        if "pretrained" in run:
            named = run["pretrained"]["text"]
            known &= all(isinstance(named[name], str) for name in ("name", "package", "hash"))
        known &= isinstance(run["config"], dict)
        known &= "weights" not in run or (
            isinstance(run["weights"], str) and type(run["step"]) is int
        )
        known &= "quantized" not in run or ("weights" in run and run["quantized"] in KINDS)
    except (ValueError, KeyError, TypeError, RecursionError):
        known = False
    if not known:
        raise ValueError(f"{path} is damaged: it is not what training wrote; put that back")
    # Runs before 0.2 have no hash of their settings.
    if "settings" in run and run["settings"] != settings_hash(run["config"]):
        raise ValueError(
            f"{path} was edited: its config is not the one that was trained; put that back (or "
            "train with other settings in another --workdir)"
        )
    return run


def settings_hash(config: dict) -> str:
    """Return the hash of all settings that a trained run draws by and that cannot be changed.

    config: as JSON has it. What training alone uses is compared when it goes on (`refuse_changes`).
    """
    free = (*FREE, *CHANGEABLE, "train.", "optim.", "ranker")

    def fixed(section: dict, path: str) -> dict:  # with its empty sections, which `flatten` drops
        kept = {
            name: each for name, each in section.items() if not f"{path}{name}.".startswith(free)
        }
        return {
            name: fixed(each, f"{path}{name}.") if isinstance(each, dict) else each
            for name, each in kept.items()
        }

    return fingerprint(json.dumps(fixed(config, ""), sort_keys=True))[:16]


def config_of(run: dict):
    """Return the config of a `run.json`, locked."""
    return configs.from_json(json.dumps(run["config"]))


def read_frozen(workdir, run: dict) -> Frozen:
    """Read the frozen parts of a run, and the published weights that its folder only names.

    Raises FileNotFoundError if something is missing, ValueError if it is not what it was in
    training.
    """
    frozen: dict[str, Any] = load_frozen(locate(workdir), run["frozen"])
    if "quantized" in run:
        frozen = widen_tree(frozen)
    if named := run.get("pretrained", {}).get("text"):
        frozen["text"] = make_encoder(config_of(run).text).make_frozen()
        if tree_hash(frozen["text"]) != named["hash"]:
            raise ValueError(
                f"{workdir} was trained with other weights of {named['name']}: those of "
                f"{named['package']}"
            )
    return cast(Frozen, frozen)


def read_tokenizer(workdir, run: dict):
    """Read a run's tokenizer. Raises ValueError if it is not the one the run was trained with."""
    path = locate(workdir) / "tokenizer.json"
    if path.is_file() and file_hash(path) != run["tokenizer"]:
        raise ValueError(f"{path} is not the one the run was trained with")
    return tokenizers.load(path)


def read_ema(workdir, which: str | int = "last") -> tuple[dict, int]:
    """Return (averaged weights {"params", "extra"}, their step) of a run, exported or not.

    which: the checkpoint: "last", "best" or a step.
    Raises as `read_run`, `checkpoint.restore_ema` and `read_exported` do.
    """
    run = read_run(workdir)
    ema, step = _stored_ema(workdir, run, which)
    return (widen_tree(ema), step) if "quantized" in run else (ema, step)


def _stored_ema(workdir, run: dict, which: str | int) -> tuple[dict, int]:
    """As `read_ema`, with quantised weights as they are in the file."""
    if "weights" in run:
        return read_exported(locate(workdir), run, which)
    return checkpoint.restore_ema(workdir, which)


def export(workdir, which: str | int, target) -> Path:
    """Write a run without its training to the folder `target`: see runs/exported.py.

    Weights that are quantised stay so.
    Raises as `read_ema`, `read_frozen` and `write_exported` do.
    """
    run, folder = read_run(workdir), locate(workdir)
    ema, step = _stored_ema(workdir, run, which)
    frozen = load_frozen(folder, run["frozen"])
    read_tokenizer(workdir, run)  # raises if it is not the run's
    return write_exported(run, ema, frozen, step, folder, target)


def read_variables(workdir, which: str | int = "last") -> Variables:
    """Read the averaged weights and the frozen parts of a run. An adapter is merged into its base.

    which: the checkpoint: "last", "best" or a step.
    Raises as `read_ema` and `read_frozen` do.
    """
    run = read_run(workdir)
    ema, _ = read_ema(workdir, which)
    variables = Variables(ema["params"], ema.get("extra") or {}, read_frozen(workdir, run))
    return merged(variables, config_of(run))


def refuse_trained_settings(overrides: Sequence[str]) -> None:
    """Raise ValueError for an override ("a.b=value") of a trained run that would have no effect."""
    for override in overrides:
        key = override.partition("=")[0]
        if not key.startswith(CHANGEABLE):
            raise ValueError(
                f"config.{key} cannot be set for a run that is trained already; what can be set "
                f"there: {', '.join(f'{name}*' for name in CHANGEABLE)}"
            )


def refuse_changes(run: dict, config, training, workdir: Path) -> bool:
    """Return whether the run in `workdir` is the one that this config and data would make.

    If it is not and has saved a checkpoint, raises ValueError, naming each difference.
    """
    before, now = flatten(config_of(run)), flatten(config)
    free = (*FREE, "train.steps") if is_longer(run, config, workdir) else FREE
    changed = [
        f"config.{key} is {now.get(key)!r}, the run has {before.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(free)
    ]
    if run["data"] != training.fingerprint:
        changed.append("the training data is not what it was (other files, captions or versions)")
    if run["tokenizer"] != file_hash(workdir / "tokenizer.json"):
        changed.append("tokenizer.json is not the one the run was trained with")
    if changed and checkpoint.last_complete_step(workdir) is not None:
        listed = "\n  ".join(changed)
        raise ValueError(
            f"{workdir} holds another run; nothing was changed; name another --workdir:\n  {listed}"
        )
    return not changed


def is_longer(run: dict, config, workdir: Path) -> bool:
    """Return whether the run in `workdir` is finished and `config` asks for more steps."""
    steps = config_of(run).train.steps
    return config.train.steps > steps and checkpoint.last_complete_step(workdir) == steps


def refuse_other_frozen_settings(before, config, sections) -> None:
    """Raise ValueError if two configs differ in the sections that frozen parts depend on.

    before: the config of the run that `config.init_from` names: frozen parts are taken from there.
    sections: `Family.frozen_depends_on`.
    """

    def chosen(config):
        flat = flatten(config)
        return {
            key: value
            for key, value in flat.items()
            for s in sections
            if f"{key}.".startswith(f"{s}.")
        }

    old, new = chosen(before), chosen(config)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise ValueError(
                f"init_from: config.{key} is {new.get(key)!r}, and that run was trained with "
                f"{old.get(key)!r}"
            )
