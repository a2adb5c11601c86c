"""GGUF files: values and arrays against numbers computed by hand, and damaged files."""

import struct

import ml_dtypes
import numpy as np
import pytest

from t2i_jax.weights import gguf
from tests import gguf_file

METADATA = {"general.architecture": "llama", "n": 7, "x": 0.5, "list": ["a", "é"], "kinds": [1, 3]}


def test_metadata_and_plain_arrays():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    half = (1, (3,), np.float16([1, 2.5, -3]).tobytes())
    brain = (30, (2,), np.array([1, -2], ml_dtypes.bfloat16).tobytes())
    blob = gguf_file.content(METADATA, {"x": x, "half": half, "brain": brain})
    metadata, arrays = gguf.read(blob, "a file")
    assert metadata == METADATA
    np.testing.assert_array_equal(arrays["x"], x)
    np.testing.assert_array_equal(arrays["half"], [1, 2.5, -3])
    np.testing.assert_array_equal(arrays["brain"], [1, -2])
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    with pytest.raises(ValueError, match="a file has no 'y'"):
        arrays["y"]


def block(kind: int, numbers: np.ndarray, scale: float, low: float = 0.0) -> bytes:
    """Pack 32 whole numbers as the format says: q4 has numbers i and i + 16 in one byte."""
    head = struct.pack("<e", scale)
    if kind == 8:
        return head + numbers.astype(np.int8).tobytes()
    packed = bytes(int(a) | int(b) << 4 for a, b in zip(numbers[:16], numbers[16:], strict=True))
    return head + (struct.pack("<e", low) if kind == 3 else b"") + packed


@pytest.mark.parametrize("kind", [2, 3, 8])
def test_quantized_arrays(kind):
    rng = np.random.default_rng(0)
    numbers = rng.integers(-128, 128, (4, 32)) if kind == 8 else rng.integers(0, 16, (4, 32))
    scales, lows = [0.5, 2.0, 0.25, 1.0], [1.0, -4.0, 0.0, 8.0]
    raw = b"".join(block(kind, *each) for each in zip(numbers, scales, lows, strict=True))
    raw = raw if kind == 3 else b"".join(map(lambda n, s: block(kind, n, s), numbers, scales))
    _, arrays = gguf.read(gguf_file.content({}, {"x": (kind, (2, 64), raw)}), "a file")
    shift = {2: -8 * np.array(scales), 3: np.array(lows), 8: np.zeros(4)}[kind]
    wanted = numbers * np.array(scales)[:, None] + shift[:, None]
    np.testing.assert_array_equal(arrays["x"], wanted.reshape(2, 64))


GOOD = gguf_file.content(METADATA, {"x": np.ones((2, 3), np.float32)})


@pytest.mark.parametrize("cut", [3, 10, 30, 60, 120, len(GOOD) - 1])
def test_a_cut_file_is_refused(cut):
    with pytest.raises(ValueError, match="a file"):
        gguf.read(GOOD[:cut], "a file")


def test_other_files_are_refused():
    with pytest.raises(ValueError, match="no GGUF file"):
        gguf.read(b"PK\x03\x04" + GOOD, "a file")
    with pytest.raises(ValueError, match="version 9"):
        gguf.read(GOOD[:4] + struct.pack("<I", 9) + GOOD[8:], "a file")
    with pytest.raises(ValueError, match="of type 12"):
        gguf.read(gguf_file.content({}, {"x": (12, (256,), bytes(144))}), "a file")
    with pytest.raises(ValueError, match="whole blocks"):
        gguf.read(gguf_file.content({}, {"x": (2, (2, 16), bytes(18))}), "a file")


@pytest.mark.parametrize("alignment", [0, "32"])
def test_a_wrong_alignment_is_refused(alignment):
    metadata = {"general.alignment": alignment}
    with pytest.raises(ValueError, match="a file is damaged"):
        gguf.read(gguf_file.content(metadata, {"x": np.ones(3, np.float32)}), "a file")


def test_huge_counts_are_refused():
    """A damaged length does not fill the memory."""
    huge = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 2**60) + b"name"
    with pytest.raises(ValueError, match="a file is damaged"):
        gguf.read(huge, "a file")
