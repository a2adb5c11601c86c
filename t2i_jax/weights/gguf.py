"""Files in GGUF, llama.cpp's format of language models: metadata and arrays, read as plain data.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Numbers are little-endian.
Arrays are stored as they are, or quantized in blocks of 32 numbers that share a scale. Nothing of a
file is ever run.
"""

import math
import struct
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Float, UInt8

from t2i_jax.weights.arrays import NamedArrays

VERSIONS = (2, 3)
BLOCK = 32  # numbers that share a scale
MAX_RANK = 4  # dimensions of an array
SCALARS = {  # type of a value: its struct format
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
STRING, ARRAY = 8, 9  # types of values

Blocks = UInt8[np.ndarray, "n bytes"]


def _scale(blocks: Blocks, at: int = 0) -> Float[np.ndarray, "n 1"]:
    """Return the float16 number at byte `at` of each block."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(blocks: Blocks) -> UInt8[np.ndarray, "n 32"]:
    """Return the 4-bit numbers of blocks of 16 bytes: all low halves, then all high halves."""
    return np.concatenate([blocks & 15, blocks >> 4], axis=1)


def _q4_0(blocks: Blocks) -> Float[np.ndarray, "n 32"]:
    return _scale(blocks) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: Blocks) -> Float[np.ndarray, "n 32"]:
    return _scale(blocks) * _nibbles(blocks[:, 4:]) + _scale(blocks, 2)


def _q8_0(blocks: Blocks) -> Float[np.ndarray, "n 32"]:
    return _scale(blocks) * np.ascontiguousarray(blocks[:, 2:]).view(np.int8)


PLAIN = {0: np.float32, 1: np.float16, 30: ml_dtypes.bfloat16}  # type of an array: of its numbers
# Type of an array: (bytes of a block, how it is read).
QUANTIZED: dict[int, tuple[int, Callable[[Blocks], np.ndarray]]] = {
    2: (18, _q4_0),
    3: (20, _q4_1),
    8: (34, _q8_0),
}


class _Reader:
    """A position in the bytes of a file, which moves on with each value that is read."""

    def __init__(self, blob: memoryview):
        self.blob, self.at = blob, 0

    def scalar(self, format: str) -> Any:
        (value,) = struct.unpack_from(format, self.blob, self.at)
        self.at += struct.calcsize(format)
        return value

    def text(self) -> str:
        size = self.scalar("<Q")
        if size > len(self.blob) - self.at:
            raise struct.error("a text is longer than the file")
        self.at += size
        return bytes(self.blob[self.at - size : self.at]).decode()

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            inner, count = self.scalar("<I"), self.scalar("<Q")
            if inner == ARRAY or count > len(self.blob):
                raise struct.error("a list has too many values, or lists in it")
            return [self.value(inner) for _ in range(count)]
        return self.scalar(SCALARS[kind])


def read(blob: bytes, source: str) -> tuple[dict[str, Any], NamedArrays]:
    """Return (metadata, arrays by name as float32) of the content of a file.

    An array has numpy's order of dimensions: a matrix is [outputs, inputs].
    source: its name, for messages.
    Raises ValueError if it is no GGUF file, damaged, or has arrays of a type that is not read.
    """
    if blob[:4] != b"GGUF":
        raise ValueError(f"{source} is no GGUF file: it does not start with GGUF")
    try:
        return _read(_Reader(memoryview(blob)), source)
    except (struct.error, ArithmeticError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{source} is damaged: {error}") from None


def _read(reader: _Reader, source: str) -> tuple[dict[str, Any], NamedArrays]:
    reader.at = 4
    version, count, entries = (reader.scalar(kind) for kind in ("<I", "<Q", "<Q"))
    if version not in VERSIONS:
        raise ValueError(f"{source} is of version {version} of GGUF: read are 2 and 3")
    metadata = {}
    for _ in range(entries):
        name = reader.text()
        metadata[name] = reader.value(reader.scalar("<I"))
    places = []
    for _ in range(count):
        name, rank = reader.text(), reader.scalar("<I")
        if rank > MAX_RANK:
            raise struct.error(f"an array of {rank} dimensions")
        shape = tuple(reader.scalar("<Q") for _ in range(rank))[::-1]
        places.append((name, shape, reader.scalar("<I"), reader.scalar("<Q")))
    start = reader.at + -reader.at % metadata.get("general.alignment", 32)
    arrays = {
        name: _array(reader.blob[start + offset :], shape, kind, f"{name} of {source}")
        for name, shape, kind, offset in places
    }
    return metadata, NamedArrays(arrays, source)


def _array(blob: memoryview, shape: tuple[int, ...], kind: int, what: str) -> np.ndarray:
    """Return the array at the start of `blob` as float32."""
    count = math.prod(shape)
    if kind in PLAIN:
        size = count * np.dtype(PLAIN[kind]).itemsize
    elif kind in QUANTIZED and shape and shape[-1] % BLOCK == 0:
        size = count // BLOCK * QUANTIZED[kind][0]
    else:
        raise ValueError(
            f"{what} is of type {kind}: read are F32, F16, BF16, Q4_0, Q4_1 and Q8_0, in rows of "
            f"whole blocks"
        )
    if size > len(blob):
        raise ValueError(f"{what} is cut: the file is damaged")
    if kind in PLAIN:
        return np.frombuffer(blob[:size], PLAIN[kind]).astype(np.float32).reshape(shape)
    width, dequantize = QUANTIZED[kind]
    blocks = np.frombuffer(blob[:size], np.uint8).reshape(-1, width)
    return dequantize(blocks).reshape(shape)
