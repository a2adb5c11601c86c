"""What a family computes of each picture without anything trained (`Encoding`): once, kept on disk.

It lies in the data folder under a hash of all that it depends on, so that other runs on the same
first stage find it too.
"""

import json
from pathlib import Path
from typing import cast

import jax
import numpy as np
from tqdm import tqdm

from t2i_jax.core.family import Encoding, Family, Frozen
from t2i_jax.core.files import atomic_path, data_dir, fingerprint
from t2i_jax.core.source import Source
from t2i_jax.runs.frozen import tree_hash

BATCH = 64  # pictures computed at once; one size, so one program


def check(config, family: Family) -> Encoding:
    """Return the family's encoding.

    Raises ValueError if it has none, or if pictures are changed in training.
    """
    if family.encoding is None:
        raise ValueError(
            f"first_stage.cache: {config.family} computes nothing of pictures before training; set "
            "it to False, or name a first stage in first_stage.run"
        )
    if any(config.augment.values()):
        raise ValueError(
            "first_stage.cache keeps pictures as they are, and config.augment changes them: turn "
            "one off"
        )
    return family.encoding


def cached_columns(config, family: Family, frozen: Frozen, source: Source) -> dict:
    """Return the encodings of all examples as columns, computed if they are not on disk yet.

    The columns are {name: array [N, ...], on disk; "image": None} for `loader.make_batch`.
    Raises ValueError as `check` does, or if what lies there was computed of other weights or
    pictures.
    """
    encoding = check(config, family)
    used = cast(Frozen, {name: frozen[name] for name in encoding.parts if name in frozen})
    side = config.data.resolution
    image = jax.ShapeDtypeStruct((1, side, side, 3), np.uint8)
    shapes = jax.eval_shape(encoding.compute, used, image)
    about = {
        "weights": tree_hash(jax.tree.map(np.asarray, used)),
        "pictures": source.fingerprint,
        "network": fingerprint(json.dumps(encoding.depends_on, sort_keys=True), shapes),
    }
    folder = data_dir() / "encodings" / fingerprint(*about.values())[:32]
    if not folder.is_dir():
        with atomic_path(folder) as part:
            part.mkdir()
            _write(part, encoding, used, source)
            (part / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    return {"image": None, **_read(folder, about)}


def _write(folder: Path, encoding: Encoding, frozen: Frozen, source: Source) -> None:
    """Write the encodings of all pictures, BATCH at once, to .npy files of their names."""
    compute, count, files = jax.jit(encoding.compute), len(source.captions), {}
    frozen = jax.device_put(frozen)
    batches = range(0, count, BATCH)
    title = "encoding pictures"
    for first in tqdm(batches, title, unit="batch", leave=False, delay=2, disable=None):
        index = np.minimum(np.arange(first, first + BATCH), count - 1)
        for name, values in jax.device_get(compute(frozen, source.read(index))).items():
            if name not in files:
                shape = (count, *values.shape[1:])
                files[name] = np.lib.format.open_memmap(
                    folder / f"{name}.npy", "w+", values.dtype, shape
                )
            files[name][first : first + BATCH] = values[: count - first]
    for file in files.values():
        file.flush()


def _read(folder: Path, about: dict) -> dict:
    found = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    if other := [name for name in about if found.get(name) != about[name]]:
        raise ValueError(
            f"{folder} was computed of other {' and '.join(other)}: remove it, and it is computed "
            "anew"
        )
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
