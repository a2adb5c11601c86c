"""A run folder with a model that was trained elsewhere, and a published folder of a run.

The run folder is that of a run without its training (runs/exported.py).
"""

import json
from pathlib import Path

from t2i_jax.convert.load import find_importer
from t2i_jax.convert.lora_file import write_lora
from t2i_jax.core.files import empty_folder, file_hash, make_folder, write_atomically
from t2i_jax.core.importer import Imported
from t2i_jax.core.registry import lookup, names_with
from t2i_jax.families.load import load_family
from t2i_jax.runs.adapters import read_adapter
from t2i_jax.runs.bucket import local_folder, upload
from t2i_jax.runs.embeddings import learned_vectors
from t2i_jax.runs.exported import WEIGHTS
from t2i_jax.runs.frozen import save_frozen, tree_hash, write_tree
from t2i_jax.runs.lock import lock_folder
from t2i_jax.runs.model_card import write_card
from t2i_jax.runs.run_folder import (
    config_of,
    read_run,
    read_tokenizer,
    read_variables,
    settings_hash,
)
from t2i_jax.weights.textual_inversion import write as write_embedding

ELSEWHERE = "trained elsewhere"  # in place of the hash of the training data


def convert_in(origin: str, workdir: str) -> None:
    """Make a run folder of the published model at `origin`.

    Other commands use it as any run; training starts from it with `init_from`.
    Raises ValueError if `origin` is no such model, and FileExistsError if the folder is not empty.
    """
    importer = find_importer(origin)
    if importer is None or importer.read is None:
        what = importer.what if importer else "no published model of a format that is known here"
        raise ValueError(
            f"{origin} is {what}: what can be converted is a folder with a model_index.json, as "
            "diffusers writes it, or a model in one .safetensors file"
        )
    folder = empty_folder(local_folder(workdir), "--workdir")
    create_run(importer.read(), folder)
    upload(folder)


def create_run(model: Imported, workdir: Path) -> None:
    """Write a run folder that holds `model`, at step 0."""
    make_folder(workdir)
    with lock_folder(workdir):
        write_atomically(workdir / "tokenizer.json", model.tokenizer.to_str(pretty=True))
        weights = {"params": model.params, "extra": {}}
        write_tree(workdir / WEIGHTS, weights)
        config = model.config.to_dict()
        run = {
            "config": config,
            "settings": settings_hash(config),
            "data": ELSEWHERE,
            "tokenizer": file_hash(workdir / "tokenizer.json"),
            "frozen": save_frozen(workdir, model.frozen),
            "weights": tree_hash(weights),
            "step": 0,
        }
        # Last: a folder with run.json is a complete run.
        write_atomically(workdir / "run.json", json.dumps(run, indent=1, sort_keys=True))
    write_card(workdir, model.config, load_family(model.config).abilities)


def convert_out(workdir: str, checkpoint: str | int, target: str) -> None:
    """Write the model of a run to the folder `target`, in the format of its family's importer.

    A target that ends in ".safetensors" is a file, which gets the adapter of the run alone
    (convert/lora_file.py), or the token that it learned (weights/textual_inversion.py).
    Raises ValueError if there is no such format, and FileExistsError if the folder is not empty, or
    the file is there.
    """
    run = read_run(workdir)
    config = config_of(run)
    if target.endswith(".safetensors"):
        _adapter_out(workdir, checkpoint, config, Path(target))
        return
    formats = [
        name
        for name in names_with("convert", "write")
        if config.family in lookup("convert", name, "families")()
    ]
    if not formats:
        raise ValueError(
            f"{workdir} is of family {config.family!r}: no other program reads it (main.py export "
            "writes it to share it)"
        )
    if config.text.get("learn"):
        raise ValueError(
            f"{workdir} learned {config.text.learn!r}: write that to a file, --to=X.safetensors"
        )
    folder = empty_folder(target, "--to")
    params, _, frozen = read_variables(workdir, checkpoint)
    model = Imported(config, params, frozen, read_tokenizer(workdir, run))
    lookup("convert", formats[0], "write")(model, folder)


def _adapter_out(workdir: str, checkpoint: str | int, config, target: Path) -> None:
    if target.exists():
        raise FileExistsError(f"{target} is there already: name another --to")
    adapter = read_adapter(workdir, config, checkpoint)
    make_folder(target.parent)
    if config.text.get("learn"):
        if adapter.parts["params"]["model"].keys() != {"text"}:
            raise ValueError(
                f"{workdir} has an adapter besides the learned {config.text.learn!r}: there is no "
                "file for both"
            )
        params, _, frozen = read_variables(workdir, checkpoint)
        write_embedding(target, config.text.learn, learned_vectors(config, params, frozen))
        return
    write_lora(adapter.parts, adapter.scale, config, target)
