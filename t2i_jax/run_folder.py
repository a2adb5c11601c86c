"""What lies in a run's folder besides its checkpoints: run.json, tokenizer.json, frozen/. Needs no TensorFlow."""

import hashlib
import json
import time
from pathlib import Path

from t2i_jax import checkpoint
from t2i_jax import config as configs
from t2i_jax.text import tokenizer as tokenizers

# What may differ between the commands that start and resume a run: nothing that changes its numbers.
FREE = ("sample.", "evaluate.", "parallel.", "train.save_every")


def read_run(workdir) -> dict:
    """A run's `run.json`: its config, and the hashes of its data, tokenizer and frozen arrays."""
    path = Path(workdir) / "run.json"
    if not path.is_file():
        raise FileNotFoundError(f"{workdir} is not a run folder: it has no run.json (train with --workdir={workdir} first)")
    return json.loads(path.read_text(encoding="utf-8"))


def open_run(config, workdir: Path, family, training):
    """(tokenizer, frozen arrays) of the run in `workdir`, made now if it is new. Refuses a run that this would change."""
    name = config.text.encoder
    if (workdir / "run.json").exists():
        run = read_run(workdir)
        refuse_changes(run, config, training, workdir)
        return tokenizers.load(workdir / "tokenizer.json"), checkpoint.load_frozen(workdir, run["frozen"])
    workdir.mkdir(parents=True, exist_ok=True)
    if config.init_from:
        origin = Path(config.init_from)
        run = read_run(origin)
        tokenizer, frozen = tokenizers.load(origin / "tokenizer.json"), checkpoint.load_frozen(origin, run["frozen"])
    else:
        tokenizer = tokenizers.train(training.captions, config.text.vocab_size)
        null, _ = tokenizers.encode(tokenizer, [""], config.text.length)
        began = time.monotonic()
        fitted = family.make_frozen(training)
        if fitted:
            print(f"fitted {', '.join(fitted)} in {time.monotonic() - began:.1f} s")
        frozen = {"null_text": {name: {key: value[0] for key, value in null.items()}}, **fitted}
    tokenizer.save(str(workdir / "tokenizer.json"))
    run = {
        "config": config.to_dict(),
        "data": training.fingerprint,
        "tokenizer": file_hash(workdir / "tokenizer.json"),
        "frozen": checkpoint.save_frozen(workdir, frozen),
    }
    temporary = workdir / "run.tmp"
    temporary.write_text(json.dumps(run, indent=1, sort_keys=True), encoding="utf-8")
    temporary.replace(workdir / "run.json")  # last: a folder with run.json is a whole run
    return tokenizer, frozen


def refuse_changes(run: dict, config, training, workdir: Path) -> None:
    """ValueError, naming each difference, if the run in `workdir` is not the one that this config and data would make."""
    before, now = configs.flatten(configs.from_json(json.dumps(run["config"]))), configs.flatten(config)
    changed = [
        f"config.{key} is {now.get(key)!r}, the run has {before.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(FREE)
    ]
    if run["data"] != training.fingerprint:
        changed.append("the training data is not what it was (other files, captions or versions)")
    if run["tokenizer"] != file_hash(workdir / "tokenizer.json"):
        changed.append("tokenizer.json is not the one the run was trained with")
    if changed:
        raise ValueError(
            f"{workdir} holds another run; nothing was changed:\n  " + "\n  ".join(changed) + "\nname another --workdir"
        )


def file_hash(path: Path) -> str:
    """sha256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
