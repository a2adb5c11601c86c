"""Files built opcode by opcode: what they contain, and that nothing in them is ever run."""

import io
import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from t2i_jax.weights import torch_file

ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
RAMP = np.arange(12, dtype=np.float32)


def text(string):
    return b"X" + struct.pack("<I", len(string)) + string.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(size, stride, offset=0, kind="FloatStorage", key="0", count=12, tail=b""):
    """Opcodes of a tensor; the stream format's persistent id ends with one more field, `tail`."""
    storage = (
        b"(("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text("cpu")
        + number(count)
        + tail
        + b"tQ"
    )
    rest = number(offset) + numbers(size) + numbers(stride) + b"\x89" + ORDERED_DICT + b"tR"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + storage + rest


def state(**tensors):
    items = b"".join(text(name) + opcodes for name, opcodes in tensors.items())
    return b"\x80\x02" + ORDERED_DICT + b"(" + items + b"u."


def zipped(program, storages=None, **members):
    """The archive format; storages {key: array}."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/data.pkl", program)
        for key, array in (storages or {"0": RAMP}).items():
            archive.writestr(f"model/data/{key}", array.tobytes())
        for name, content in members.items():
            archive.writestr(f"model/{name}", content)
    return buffer.getvalue()


def stream(program, storages=None, little=True):
    """The format before PyTorch 1.6."""
    storages = {"0": RAMP} if storages is None else storages
    parts = [
        pickle.dumps(torch_file.MAGIC, 2),
        pickle.dumps(1001, 2),
        pickle.dumps({"little_endian": little}, 2),
    ]
    parts += [program, pickle.dumps(list(storages), 2)]
    return b"".join(
        parts + [struct.pack("<q", array.size) + array.tobytes() for array in storages.values()]
    )


FORMATS = pytest.mark.parametrize(("write", "tail"), [(zipped, b""), (stream, b"N")])


@FORMATS
def test_views_of_one_storage(write, tail):
    program = state(
        whole=tensor((3, 4), (4, 1), tail=tail),
        turned=tensor((4, 3), (1, 4), tail=tail),
        part=tensor((2, 2), (4, 1), offset=5, tail=tail),
        one=tensor((), (), offset=7, tail=tail),
        repeated=tensor((2, 3), (0, 1), tail=tail),
        none=tensor((0, 4), (4, 1), tail=tail),
    )
    arrays = torch_file.load(write(program))
    matrix = RAMP.reshape(3, 4)
    expected = dict(
        whole=matrix,
        turned=matrix.T,
        part=matrix[1:, 1:3],
        one=RAMP[7],
        repeated=RAMP[[[0, 1, 2]] * 2],
    )
    assert list(arrays) == ["whole", "turned", "part", "one", "repeated", "none"]
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, strict=name != "one")
    assert arrays["one"].shape == () and arrays["none"].shape == (0, 4)


@FORMATS
def test_types(write, tail):
    kinds = dict(
        Double="f8",
        Float="f4",
        Half="f2",
        Long="i8",
        Int="i4",
        Short="i2",
        Char="i1",
        Byte="u1",
        Bool="?",
    )
    arrays = {kind: np.array([0, 1, 3]).astype(dtype) for kind, dtype in kinds.items()}
    # The upper halves of 0.0, 1.0, 3.0.
    arrays["BFloat16"] = np.array([0, 0x3F80, 0x4040], np.uint16)
    program = state(
        **{kind: tensor((3,), (1,), 0, f"{kind}Storage", kind, 3, tail) for kind in arrays}
    )
    found = torch_file.load(write(program, arrays))
    for kind, dtype in kinds.items():
        np.testing.assert_array_equal(found[kind], arrays[kind], strict=True)
        assert found[kind].dtype == dtype
    np.testing.assert_array_equal(
        found["BFloat16"], np.array([0, 1, 3], ml_dtypes.bfloat16), strict=True
    )


def test_parameters_attributes_memo_and_a_plain_dict_by_path(tmp_path):
    parameter = (
        b"ctorch._utils\n_rebuild_parameter\n("
        + tensor((12,), (1,))
        + b"\x88"
        + ORDERED_DICT
        + b"tR"
    )
    items = text("a") + b"q\x07" + parameter + b"q\x08" + b"s" + text("b") + b"h\x08s"
    metadata = b"}" + text("_metadata") + b"}s" + b"b"
    (tmp_path / "ordered.pth").write_bytes(
        zipped(b"\x80\x02" + ORDERED_DICT + items + metadata + b".")
    )
    (tmp_path / "plain.bin").write_bytes(zipped(b"\x80\x02}" + items + b"."))
    for path in (tmp_path / "ordered.pth", str(tmp_path / "plain.bin")):
        arrays = torch_file.load(path)
        assert list(arrays) == ["a", "b"]
        np.testing.assert_array_equal(arrays["b"], RAMP)
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        torch_file.load(tmp_path / "absent.pth")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_a_command_is_named_and_not_run(tmp_path, protocol):
    evil = pickle.dumps({"weight": Evil(tmp_path / "ran")}, protocol)
    for content in (evil, zipped(evil), stream(evil), stream(state(), {})[:-1] + evil):
        with pytest.raises(ValueError, match=rf"{os.name}\.system|opcode|magic number|tensor"):
            torch_file.load(content)
    with pytest.raises(ValueError, match=rf"it wants {os.name}\.system.*nothing of it was run"):
        torch_file.interpret(io.BytesIO(pickle.dumps(Evil(tmp_path / "ran"), protocol)))
    assert not (tmp_path / "ran").exists()
    pickle.loads(evil)  # it would have run
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"(S'id'\nios\nsystem\n.", "opcode INST"),
        (b"\x80\x02ctorch\nFloatStorage\n)\x81.", "opcode NEWOBJ"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", r"would call torch\.FloatStorage"),
        (b"\x80\x02" + text("os.system") + b")R.", r"would call 'os\.system'"),
        (b"\x80\x04" + text("builtins") + text("eval") + b"\x93.", r"wants builtins\.eval"),
        (
            b"\x80\x02ctorch.nn.modules.linear\nLinear\n.",
            r"wants torch\.nn\.modules\.linear\.Linear",
        ),
        (b"\x80\x02]}b.", "set attributes of a list"),
        (b"\x80\x02].", "holds a list, not a dict of tensors"),
        (b"\x80\x02}" + text("state_dict") + b"}s.", "'state_dict' is a dict, not a tensor"),
        (b"\x80\x02}" + text("epoch") + number(3) + b"s.", "'epoch' is a int, not a tensor"),
        (state(w=tensor((13,), (1,))), "'w' reaches beyond its storage of 12"),
        (state(w=tensor((3, 4), (5, 1))), "'w' reaches beyond"),
        (state(w=tensor((3,), (1,), offset=10)), "'w' reaches beyond"),
        (state(w=tensor((3,), (1,), offset=-1)), "'w' has offset -1"),
        (state(w=tensor((3,), (-1,), offset=2)), "'w' has .* stride"),
        (state(w=tensor((3, 4), (1,))), "'w' has .* stride"),
        (
            state(w=tensor((3,), (1,), count=13)),
            "storage of 'w' should have 13 elements, it has 48 bytes",
        ),
        (state(w=tensor((3,), (1,), key="1")), "damaged"),
        (state(w=tensor((3,), (1,), kind="QInt8Storage")), r"wants torch\.QInt8Storage"),
        (b"\x80\x02R.", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02}", "exhausted"),
    ],
)
def test_what_is_no_state_dict_is_said(program, message):
    with pytest.raises(ValueError, match=message):
        torch_file.load(zipped(program))


def test_what_is_no_such_file_is_said():
    good = state(w=tensor((12,), (1,)))
    cases = {
        "magic number": pickle.dumps(3),
        r"without a NAME/data\.pkl": zipped(good).replace(b"data.pkl", b"data.txt"),
        "big-endian": zipped(good, byteorder=b"big"),
        "big-endian machine": stream(good, little=False),
        "is damaged": b"PK\x03\x04 and then nothing",
        "belongs to no tensor": stream(good, {"0": RAMP, "1": RAMP}),
    }
    for message, content in cases.items():
        with pytest.raises(ValueError, match=message):
            torch_file.load(content)


@FORMATS
def test_no_damage_gives_another_error_than_valueerror(write, tail):
    whole = write(state(a=tensor((3, 4), (4, 1), tail=tail), b=tensor((2,), (1,), tail=tail)))
    for end in range(len(whole)):
        with pytest.raises(ValueError):
            torch_file.load(whole[:end])
    rng, failed = np.random.default_rng(0), 0
    for _ in range(3000):
        content = bytearray(whole)
        content[rng.integers(len(content))] = rng.integers(256)
        try:
            torch_file.load(bytes(content))
        except ValueError:
            failed += 1
    assert 1000 < failed < 3000
