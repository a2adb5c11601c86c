"""The arrays of a PyTorch state dict (`.pth`, `.pt`, `.bin`), read without unpickling.

A pickle is a program that may call anything. Here the standard library's `pickletools` parses its
opcodes and runs nothing. They are interpreted as plain data: numbers, strings, tuples, lists, dicts
and the few names in GLOBALS that a state dict consists of. Anything else is a ValueError that names
it. Both formats of `torch.save` are read: the zip archive (since PyTorch 1.6), and the older stream
of pickles.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the stream format
STORAGES = {
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": ml_dtypes.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
    "torch.ComplexFloatStorage": np.complex64,
    "torch.ComplexDoubleStorage": np.complex128,
}
ORDERED_DICT = "collections.OrderedDict"
TENSOR = "torch._utils._rebuild_tensor_v2"
PARAMETER = "torch._utils._rebuild_parameter"
GLOBALS = (ORDERED_DICT, TENSOR, PARAMETER, *STORAGES)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
# Opcodes whose argument is a value.
VALUES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    )
)


class Global(NamedTuple):
    """A name that the pickle would import."""

    name: str


class Storage(NamedTuple):
    """A flat sequence of `count` numbers, stored under `key` outside of the pickle."""

    key: str
    dtype: type
    count: int


class Tensor(NamedTuple):
    """A view of a storage; offset and stride count elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def load(file: str | Path | bytes) -> dict[str, np.ndarray]:
    """Return {name: array} of a state dict. The arrays are read-only views of the file's content.

    file: a path, or the content of such a file.

    Raises FileNotFoundError if there is no such file. Raises ValueError if it has neither of the
    two formats, is damaged, is not a dict of tensors, or would call anything (nothing is called).
    """
    name = "the state dict" if isinstance(file, bytes) else str(file)
    content = file if isinstance(file, bytes) else Path(file).expanduser().read_bytes()
    try:
        tensors, storage = _zip(content) if content.startswith(b"PK") else _stream(content)
        return {key: _array(key, tensor, storage) for key, tensor in tensors.items()}
    except ValueError as error:
        raise ValueError(f"{name} is not a state dict that can be read: {error}") from error
    # Broken bytes make zipfile and the opcodes raise nearly every kind of error.
    except Exception as error:
        raise ValueError(f"{name} is damaged: {error!r}") from error


def _zip(content: bytes) -> tuple[dict[str, Tensor], Callable[[Storage], bytes]]:
    """Read the archive format: NAME/data.pkl, and each storage as a file NAME/data/KEY."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    pickles = [
        name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1
    ]
    if len(pickles) != 1:
        raise ValueError("it is a zip archive without a NAME/data.pkl")
    top = pickles[0].removesuffix("data.pkl")
    order = f"{top}byteorder"
    _check_order(order not in archive.namelist() or archive.read(order) == b"little")
    tensors = _tensors(interpret(io.BytesIO(archive.read(pickles[0]))))
    return tensors, lambda storage: archive.read(f"{top}data/{storage.key}")


def _stream(content: bytes) -> tuple[dict[str, Tensor], Callable[[Storage], bytes]]:
    """Read the stream format: five pickles, then the length and the bytes of each storage.

    The pickles are a magic number, the version, the system, the object, and the storage keys.
    """
    file = io.BytesIO(content)
    if interpret(file) != MAGIC:
        raise ValueError(
            "it is neither a zip archive nor a stream that starts with PyTorch's magic number"
        )
    interpret(file)
    _check_order(interpret(file)["little_endian"])
    tensors, keys = _tensors(interpret(file)), interpret(file)
    known = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    found = {}
    for key in keys:
        if key not in known:
            raise ValueError(
                f"storage {key} belongs to no tensor of the dict, so its type is unknown"
            )
        size = int.from_bytes(file.read(8), "little") * np.dtype(known[key].dtype).itemsize
        found[key] = file.read(min(size, len(content)))
    return tensors, lambda storage: found[storage.key]


def _check_order(little):
    if not little:
        raise ValueError("it was written by a big-endian machine")


def _tensors(value):
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not a dict of tensors")
    for name, tensor in value.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name!r} is a {type(tensor).__name__}, not a tensor")
    return value


def _array(name, tensor, storage):
    (_, dtype, count), offset, size, stride = tensor
    if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise ValueError(f"{name!r} has offset {offset}, size {size} and stride {stride}")
    content = storage(tensor.storage)
    if len(content) != count * np.dtype(dtype).itemsize:
        raise ValueError(
            f"the storage of {name!r} should have {count} elements, it has {len(content)} bytes"
        )
    if math.prod(size) == 0:
        return np.zeros(size, dtype)
    if offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= count:
        raise ValueError(f"{name!r} reaches beyond its storage of {count} elements")
    flat = np.frombuffer(content, dtype)[offset:]
    return np.lib.stride_tricks.as_strided(
        flat, size, [s * flat.itemsize for s in stride], writeable=False
    )


def interpret(file: io.BytesIO) -> Any:
    """Return the value of the pickle at the file's position, which moves behind it. Runs nothing.

    Raises ValueError, naming it, for anything but plain data. Opcodes that make no sense together
    raise other errors too.
    """
    # MARK puts the stack aside, until an opcode takes all values above the mark.
    stack: list[Any] = []
    outer: list[list[Any]] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in VALUES:
            stack.append(argument)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            count = 0 if name == "EMPTY_TUPLE" else int(name[-1])
            stack.append(tuple([stack.pop() for _ in range(count)][::-1]))
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name == "MARK":
            outer.append(stack)
            stack = []
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            items, stack = stack, outer.pop()
            if name == "TUPLE":
                stack.append(tuple(items))
            elif name == "APPENDS":
                stack[-1].extend(items)
            else:
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "APPEND":
            value = stack.pop()
            stack[-1].append(value)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            stack[-1].update({key: value})
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                parts = [stack.pop(), stack.pop()][::-1]
            else:
                parts = str(argument).split(" ")
            stack.append(_global(".".join(parts)))
        elif name == "BINPERSID":
            stack.append(_storage(*stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_call(function, arguments))
        elif name == "BUILD":  # sets attributes of an OrderedDict, such as _metadata: no weights
            stack.pop()
            target = stack[-1]
            if not isinstance(target, dict):
                raise ValueError(f"it would set attributes of a {type(target).__name__}")
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has the opcode {name}, which no state dict needs")
    raise ValueError("it has a pickle without an end")


def _global(name):
    if name not in GLOBALS:
        raise ValueError(
            f"it wants {name}, which is neither a tensor nor a dict (nothing of it was run)"
        )
    return Global(name)


def _storage(kind, storage, key, location, count, view=None):
    """Return the storage of a persistent id. `location` is the device it was on."""
    del location
    known = isinstance(storage, Global) and storage.name in STORAGES
    if kind != "storage" or not known or view is not None:
        raise ValueError(
            f"it refers to {(kind, storage, key, count, view)}, which is no whole storage"
        )
    return Storage(key, STORAGES[storage.name], count)


def _call(function, arguments):
    """Return what the three functions of GLOBALS would return, as plain data."""
    name = function.name if isinstance(function, Global) else repr(function)
    if name == ORDERED_DICT:
        return dict(*arguments)
    if name == TENSOR:
        storage, offset, size, stride = arguments[:4]
        if not isinstance(storage, Storage):
            raise ValueError(f"it makes a tensor of a {type(storage).__name__}")
        return Tensor(storage, offset, size, stride)
    if name == PARAMETER:
        return arguments[0]
    raise ValueError(f"it would call {name}")
