"""Arrays of safetensors files, read and written one at a time."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (adds bfloat16 to numpy, so that safetensors can read it)
import numpy as np
from safetensors import SafetensorError, safe_open

PICKLES = (".bin", ".ckpt", ".pt", ".pth")
ALIGNMENT = 8  # bytes; of the header's end
TYPES = {  # NumPy's names, and those of the format
    **{"bool": "BOOL", "bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"},
    **{"int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64"},
    **{"uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64"},
}


class StoredArrays(Mapping[str, np.ndarray]):
    """A mapping from names to arrays, each in a file. It holds no array.

    A file is opened for each array and closed again, so that what was read is not kept in memory.

    places: for each name, the file that has the array.
    metadata: that of the file, if it is one.
    """

    def __init__(self, places: Mapping[str, Path], metadata: Mapping[str, str] | None = None):
        self.places, self.metadata = dict(places), dict(metadata or {})

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


def write_file(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays to a safetensors file (format: github.com/huggingface/safetensors).

    Each array is brought into C order when its turn comes, so transposed views of parameters cost
    no memory but that of one array.

    path: of the file; what is there is replaced.
    Raises ValueError for a type of numbers that the format does not have.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    # Large numbers first, so that each array starts at a multiple of the size of its numbers.
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    for name in order:
        array = arrays[name]
        if array.dtype.name not in TYPES:
            raise ValueError(f"{name} is of {array.dtype}, which no safetensors file can hold")
        about = {"dtype": TYPES[array.dtype.name], "shape": [*array.shape]}
        header[name] = {**about, "data_offsets": [end, end := end + array.nbytes]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(bytes_of(arrays[name]))


def bytes_of(array: np.ndarray) -> memoryview:
    """Return the bytes of an array in C order, without a copy if it is in that order already."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def open_file(path: str | Path) -> StoredArrays:
    """Return the arrays of one file. Raises ValueError if it is damaged."""
    try:
        with safe_open(path, "np") as file:
            places = {name: Path(path) for name in file.keys()}  # noqa: SIM118 (no dict)
            return StoredArrays(places, file.metadata())
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
