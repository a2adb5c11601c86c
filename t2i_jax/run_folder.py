"""What lies in a run's folder besides its checkpoints: run.json, tokenizer.json, frozen/. Needs no TensorFlow."""

import hashlib
import json
import time
from pathlib import Path

from t2i_jax import checkpoint
from t2i_jax import config as configs
from t2i_jax.convert import language_model
from t2i_jax.families.family import Variables
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.condition import make_encoder

# What may differ between the commands that start and resume a run: nothing that changes its numbers.
FREE = ("sample.", "ranker", "caption.", "evaluate.", "parallel.", "train.save_every")


def read_run(workdir) -> dict:
    """A run's `run.json`: its config, hashes of its data, tokenizer and frozen arrays, and what pretrained weights it uses."""
    path = Path(workdir) / "run.json"
    if not path.is_file():
        raise FileNotFoundError(f"{workdir} is not a run folder: it has no run.json (train with --workdir={workdir} first)")
    return json.loads(path.read_text(encoding="utf-8"))


def config_of(run: dict):
    """The config of a `run.json`, locked."""
    return configs.from_json(json.dumps(run["config"]))


def write_whole(path: Path, text: str) -> None:
    """Write a file that has its name only when it is whole."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_frozen(workdir, run: dict) -> dict:
    """All that a run uses and does not train: what was fitted for it, and published weights, which its folder only names.

    Raises FileNotFoundError if something is missing, ValueError if it is not what it was in training.
    """
    frozen = checkpoint.load_frozen(workdir, run["frozen"])
    if named := run.get("pretrained", {}).get("text"):
        frozen["text"] = make_encoder(config_of(run).text).make_frozen()
        if checkpoint.tree_hash(frozen["text"]) != named["hash"]:
            raise ValueError(f"{workdir} was trained with other weights of {named['name']}: those of {named['package']}")
    return frozen


def read_variables(workdir, run: dict, which: str | int = "last") -> Variables:
    """Averaged weights of a checkpoint, and the frozen arrays, of the run whose `run.json` is `run`.

    Raises as `checkpoint.restore_ema` and `read_frozen` do.
    """
    ema, _ = checkpoint.restore_ema(workdir, which)
    return Variables(ema["params"], ema.get("extra") or {}, read_frozen(workdir, run))


def open_run(config, workdir: Path, family, training):
    """(tokenizer, frozen arrays) of the run in `workdir`, made now if it is new, or another that never came to a checkpoint.

    ValueError, naming each difference, if it is another run than this config and data would make.
    """
    run = read_run(workdir) if (workdir / "run.json").exists() else None
    if run and refuse_changes(run, config, training, workdir):
        return tokenizers.load(workdir / "tokenizer.json"), read_frozen(workdir, run)
    workdir.mkdir(parents=True, exist_ok=True)
    encoder, published = make_encoder(config.text), language_model.is_published(config.init_from)
    if published:
        language_model.check(config.init_from, config)
    if config.init_from and not published:
        origin = Path(config.init_from)
        run = read_run(origin)
        refuse_other_codes(config_of(run), config)
        tokenizer, frozen = tokenizers.load(origin / "tokenizer.json"), read_frozen(origin, run)
    else:
        make_tokenizer = language_model.tokenizer if published else encoder.make_tokenizer
        tokenizer = make_tokenizer(config.init_from if published else training.captions)
        null = encoder.precompute(tokenizers.encode(tokenizer, [""], config.text.length)[0])
        began = time.monotonic()
        fitted = family.make_frozen(training)
        if fitted:
            print(f"fitted {', '.join(fitted)} in {time.monotonic() - began:.1f} s")
        frozen = {"null_text": {config.text.encoder: {key: value[0] for key, value in null.items()}}, **fitted}
        if published := encoder.make_frozen():
            frozen["text"] = published
    tokenizer.save(str(workdir / "tokenizer.json"))
    run = {
        "config": config.to_dict(),
        "data": training.fingerprint,
        "tokenizer": file_hash(workdir / "tokenizer.json"),
        "frozen": checkpoint.save_frozen(workdir, {name: tree for name, tree in frozen.items() if name != "text"}),
    }
    if "text" in frozen:  # not copied: it can be had again
        named = {"name": config.text.encoder, "package": encoder.package, "hash": checkpoint.tree_hash(frozen["text"])}
        run["pretrained"] = {"text": named}
    # Last: a folder with run.json is a whole run.
    write_whole(workdir / "run.json", json.dumps(run, indent=1, sort_keys=True))
    return tokenizer, frozen


def refuse_changes(run: dict, config, training, workdir: Path) -> bool:
    """Whether the run in `workdir` is the one that this config and data would make.

    If it is not, ValueError, naming each difference, unless nothing of it was saved yet.
    """
    before, now = configs.flatten(config_of(run)), configs.flatten(config)
    changed = [
        f"config.{key} is {now.get(key)!r}, the run has {before.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(FREE)
    ]
    if run["data"] != training.fingerprint:
        changed.append("the training data is not what it was (other files, captions or versions)")
    if run["tokenizer"] != file_hash(workdir / "tokenizer.json"):
        changed.append("tokenizer.json is not the one the run was trained with")
    if changed and checkpoint.last_whole(workdir) is not None:
        raise ValueError(
            f"{workdir} holds another run; nothing was changed:\n  " + "\n  ".join(changed) + "\nname another --workdir"
        )
    return not changed


def refuse_other_codes(before, config) -> None:
    """ValueError if a run that starts from another would see pictures otherwise: what is frozen is taken from there."""

    def sight(config):
        named = {"first_stage": config.first_stage.config, **{k: config.get(k) for k in ("image_tokenizer", "captioner")}}
        return configs.flatten({name: value or {} for name, value in named.items()})

    old, new = sight(before), sight(config)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise ValueError(f"init_from: config.{key} is {new.get(key)!r}, and that run was trained with {old.get(key)!r}")


def file_hash(path: Path) -> str:
    """sha256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
