"""What a family computes of each picture without anything that is trained (codes, latents, features): once, kept on disk.

It lies in the data folder under a hash of all that it depends on, so that other runs on the same first stage find it too.
"""

import json
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from t2i_jax.checkpoint import tree_hash
from t2i_jax.data.source import Source, data_dir, fingerprint, whole

VERSION = 1  # of what is computed: one more where an encoder's code comes to give other numbers of the same weights
BATCH = 64  # pictures computed at once; one size, so one program


def check(config, family) -> None:
    """ValueError if the family computes nothing beforehand, or if pictures are changed in training."""
    if family.precompute is None:
        why = "set it to False, or name a first stage in first_stage.run"
        raise ValueError(f"first_stage.cache: {config.family} computes nothing of pictures before training; {why}")
    if any(config.augment.values()):
        raise ValueError("first_stage.cache keeps pictures as they are, and config.augment changes them: turn one off")


def columns(config, family, frozen, source: Source) -> dict:
    """{name: array [N, ...] of all examples, on disk; "image": None} for `loader.make_batch`, computed if it is not there yet.

    Raises ValueError as `check` does, or if what lies there was computed of other weights or pictures.
    """
    check(config, family)
    used = {name: tree for name, tree in frozen.items() if name not in ("text", "null_text")}
    side = config.data.resolution
    gives = jax.eval_shape(family.precompute, used, jax.ShapeDtypeStruct((1, side, side, 3), np.uint8))
    network = [config.first_stage.config.to_dict(), config.get("captioner", ConfigDict()).to_dict()]
    about = {
        "weights": tree_hash(jax.tree.map(np.asarray, used)),
        "pictures": source.fingerprint,
        "network": fingerprint(json.dumps([VERSION, network], sort_keys=True), gives),
    }
    folder = data_dir() / "precomputed" / fingerprint(*about.values())[:32]
    if not folder.is_dir():
        with whole(folder) as part:
            part.mkdir()
            _write(part, family.precompute, used, source)
            (part / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    return {"image": None, **_read(folder, about)}


def _write(folder: Path, precompute, frozen, source: Source) -> None:
    """Write what precompute(frozen, pictures) gives of all pictures, BATCH at once, to .npy files of their names."""
    compute, count, files = jax.jit(precompute), len(source.captions), {}
    frozen = jax.device_put(frozen)
    for first in tqdm(range(0, count, BATCH), desc="encoding pictures", unit="batch", leave=False, delay=2):
        index = np.minimum(np.arange(first, first + BATCH), count - 1)
        for name, values in jax.device_get(compute(frozen, source.read(index))).items():
            if name not in files:
                files[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", values.dtype, (count, *values.shape[1:]))
            files[name][first : first + BATCH] = values[: count - first]
    for file in files.values():
        file.flush()


def _read(folder: Path, about: dict) -> dict:
    found = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    if other := [name for name in about if found.get(name) != about[name]]:
        raise ValueError(f"{folder} was computed of other {' and '.join(other)}: remove it, and it is computed anew")
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
