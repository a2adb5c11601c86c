"""Arrays of safetensors files that are read when they are asked for, one at a time."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes  # noqa: F401 (adds bfloat16 to numpy, so that safetensors can read it)
import numpy as np
from safetensors import SafetensorError, safe_open

PICKLES = (".bin", ".ckpt", ".pt", ".pth")


class StoredArrays(Mapping[str, np.ndarray]):
    """A mapping from names to arrays, each in a file. It holds no array.

    A file is opened for each array and closed again, so that what was read is not kept in memory.

    places: for each name, the file that has the array.
    """

    def __init__(self, places: Mapping[str, Path]):
        self.places = dict(places)

    def __getitem__(self, name: str) -> np.ndarray:
        path = self.places[name]
        try:
            with safe_open(path, "np") as file:
                return file.get_tensor(name)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def open_file(path: str | Path) -> StoredArrays:
    """Return the arrays of one file. Raises ValueError if it is damaged."""
    try:
        with safe_open(path, "np") as file:
            return StoredArrays({name: Path(path) for name in file.keys()})  # noqa: SIM118 (no dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def open_folder(folder: str | Path, stem: str) -> StoredArrays:
    """Return the arrays of a published folder.

    They are in STEM.safetensors, or in several files that STEM.safetensors.index.json lists, or in
    a variant of these, such as STEM.fp16.safetensors; the first one found is read.

    Raises FileNotFoundError if there is none, or a listed file is missing; ValueError if the only
    weights are a pickle, which could run code when it is read, or if a file is damaged.
    """
    folder = Path(folder)
    for whole, parts in (
        (f"{stem}.safetensors", f"{stem}.safetensors.index.json"),
        (f"{stem}.*.safetensors", f"{stem}.safetensors.index.*.json"),
    ):
        for index in sorted(folder.glob(parts)):
            return _open_parts(index)
        for path in sorted(folder.glob(whole)):
            return open_file(path)
    if pickles := sorted(p.name for p in folder.glob("*") if p.suffix in PICKLES):
        raise ValueError(
            f"the weights in {folder} are a pickle ({pickles[0]}), which could run any code when "
            f"it is read: provide {stem}.safetensors instead"
        )
    raise FileNotFoundError(f"no weights in {folder}: it needs {stem}.safetensors")


def _open_parts(index: Path) -> StoredArrays:
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        places = {name: index.parent / file for name, file in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is damaged: it lists no weight_map ({error})") from None
    if outside := [file for file in listed.values() if Path(file).name != file]:
        raise ValueError(f"{index} names {outside[0]}, which does not lie beside it")
    for path in set(places.values()):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: {index.name} lists it")
    return StoredArrays(places)
