"""Arrays of ONNX files, read from their bytes (protobuf, github.com/onnx/onnx, onnx.proto).

Nothing of the graph is run. Only what holds arrays is looked at: the stored tensors, and the nodes
that turn stored integers into floats.
"""

import math
from typing import Any

import numpy as np

from t2i_jax.weights.arrays import NamedArrays

FLOAT = 1
DTYPES = {FLOAT: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8"}  # TensorProto.DataType
DAMAGED = (IndexError, KeyError, OverflowError, TypeError, UnicodeDecodeError, ValueError)


def read(content: bytes, source: str) -> NamedArrays:
    """Return the arrays of a model by name, as float32.

    They are the stored float arrays, and for each node DequantizeLinear of a stored integer array
    what it computes, (array - zero point) * scale, under the name of its output.

    content: of the file. source: where it comes from, for messages.
    Raises ValueError for a damaged file, and for arrays that are stored in another way.
    """
    try:
        (graph,) = _fields(content)[7]
        parts = _fields(graph)
        stored = dict(_tensor(_fields(each)) for each in parts.get(5, ()))
        nodes = [_fields(each) for each in parts.get(1, ())]
        found = {name: array for name, array in stored.items() if array.dtype == np.float32}
        for node in nodes:
            inputs = [bytes(name).decode() for name in node.get(1, ())]
            if node[4] == [b"DequantizeLinear"] and inputs[0] in stored:
                array, *rest = (stored[name] for name in inputs)
                found[bytes(node[2][0]).decode()] = _floats(array, _axis(node), *rest)
    except DAMAGED as error:
        raise ValueError(f"{source} is damaged, or cannot be read here: {error}") from error
    return NamedArrays(found, source)


def _floats(array, axis, scale, zero: Any = 0) -> np.ndarray:
    """Return (array - zero) * scale. scale, zero: one number, or one for each index of `axis`."""
    shape = [1] * array.ndim
    if np.ndim(scale):
        shape[axis] = -1
    zero, scale = (np.reshape(x, shape) for x in (np.asarray(zero, np.int64), scale))
    return ((array.astype(np.int64) - zero) * scale).astype(np.float32)


def _axis(node) -> int:
    """Return the attribute `axis` of a node; 1 is the default of ONNX."""
    attributes = {bytes(each[1][0]): each for each in map(_fields, node.get(5, ()))}
    if other := attributes.keys() - {b"axis"}:
        raise ValueError(f"DequantizeLinear with {sorted(other)}")
    return attributes[b"axis"][3][0] if attributes else 1


def _tensor(fields) -> tuple[str, np.ndarray]:
    name, kind, shape = bytes(fields[8][0]).decode(), fields[2][0], _integers(fields.get(1, ()))
    raw = b"".join(fields.get(9) or (fields.get(4, ()) if kind == FLOAT else ()))
    if kind not in DTYPES or len(raw) != math.prod(shape) * np.dtype(DTYPES[kind]).itemsize:
        raise ValueError(f"{name} is of data type {kind}, or not stored as raw data")
    return name, np.frombuffer(raw, DTYPES[kind]).reshape(shape)


def _integers(values) -> list[int]:
    """Return a repeated integer, of which several may be packed into one value."""
    found = []
    for value in values:
        place = 0
        while not isinstance(value, int) and place < len(value):
            number, place = _varint(value, place)
            found.append(number)
        if isinstance(value, int):
            found.append(value)
    return found


def _fields(content) -> dict[int, list[Any]]:
    """Return the values of a message by field number, in their order: integers, or bytes."""
    view, place, found = memoryview(content), 0, {}
    while place < len(view):
        tag, place = _varint(view, place)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = _varint(view, place)
        else:
            if kind == 2:
                size, place = _varint(view, place)
            else:
                size = {1: 8, 5: 4}[kind]
            if place + size > len(view):
                raise ValueError("it ends too early")
            value, place = view[place : place + size], place + size
        found.setdefault(number, []).append(value)
    return found


def _varint(view, place: int) -> tuple[int, int]:
    """Return (the integer that is stored at a place, 7 bits a byte; the place after it)."""
    number = shift = 0
    while True:
        byte = view[place]
        number, place, shift = number | (byte & 127) << shift, place + 1, shift + 7
        if byte < 128:
            return number, place
