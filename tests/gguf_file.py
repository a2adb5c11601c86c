"""Write GGUF files, for tests: numbers of 32 bits, texts, and lists of them."""

import struct

import numpy as np

F32 = 0


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(given) -> bytes:
    """A value with its type."""
    if isinstance(given, str):
        return struct.pack("<I", 8) + text(given)
    if isinstance(given, float):
        return struct.pack("<If", 6, given)
    if isinstance(given, int):
        return struct.pack("<II", 4, given)
    kind = 8 if given and isinstance(given[0], str) else 4
    items = b"".join(text(each) if kind == 8 else struct.pack("<I", each) for each in given)
    return struct.pack("<IIQ", 9, kind, len(given)) + items


def content(metadata: dict, arrays: dict) -> bytes:
    """Return a file's content.

    arrays: {name: float32 array, or (type, shape, bytes)}.
    """
    head, data = struct.pack("<4sIQQ", b"GGUF", 3, len(arrays), len(metadata)), b""
    for name, given in metadata.items():
        head += text(name) + value(given)
    for name, given in arrays.items():
        if isinstance(given, np.ndarray):
            given = (F32, given.shape, given.astype("<f4").tobytes())
        kind, shape, raw = given
        data += bytes(-len(data) % 32)
        head += text(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", kind, len(data))
        data += raw
    return head + bytes(-len(head) % 32) + data
