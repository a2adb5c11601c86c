"""Pictures give the same features in batches of any size, and on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from t2i_jax.data.pictures import rgb
from t2i_jax.features import extractor as features

WEIGHTS = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


def fake(traces=None):
    """Features [B, 5] = tanh of a mean colour times weights, for each picture independently."""

    def apply(weights, pictures):
        if traces is not None:
            traces.append(pictures.shape)
        mean = pictures.astype(jnp.float32).mean((1, 2)) / 255
        return {
            "features": jnp.tanh(mean @ weights),
            "maps": [pictures[:, ::2].astype(jnp.float32), mean],
        }

    return features.Extractor("fake", "none", WEIGHTS, apply)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (67, 6, 4, 3)).astype(np.uint8)


def gathered(out, key="features"):
    return np.concatenate([part[key] for part in out])


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_batch_sizes_and_devices_agree(pictures, batch, devices):
    traces = []
    out = list(features.extract(fake(traces), pictures, batch, jax.devices()[:devices]))
    expected = np.tanh(pictures.astype(np.float64).mean((1, 2)) / 255 @ WEIGHTS)
    np.testing.assert_allclose(gathered(out), expected, rtol=1e-6, atol=1e-6)
    rounded = -(-batch // devices) * devices
    assert [len(part["features"]) for part in out[:-1]] == [rounded] * (len(out) - 1)
    assert traces == [(rounded, 6, 4, 3)]  # one program, also for the last batch
    assert all(isinstance(part["features"], np.ndarray) for part in out)


def test_the_batch_is_shared_by_all_local_devices(pictures):
    seen = []
    extractor = fake()

    def apply(weights, x):
        jax.debug.inspect_array_sharding(
            x, callback=lambda sharding: seen.append(sharding.device_set)
        )
        return extractor.apply(weights, x)

    list(features.extract(extractor._replace(apply=apply), pictures, 16))
    assert [len(devices) for devices in seen] == [len(jax.local_devices())] == [8]


def test_arrays_of_any_length_and_single_pictures_are_the_same_stream(pictures):
    whole = gathered(features.extract(fake(), pictures, 16))
    mixed = [
        pictures[:1],
        *pictures[1:3],
        pictures[3:40],
        pictures[40:40],
        Image.fromarray(pictures[40]),
        pictures[41:],
    ]
    np.testing.assert_array_equal(gathered(features.extract(fake(), mixed, 16)), whole)
    assert list(features.extract(fake(), [], 16)) == []


def test_never_more_than_a_batch_is_read_ahead(pictures):
    read = 0

    def counted():
        nonlocal read
        for picture in pictures:
            read += 1
            yield picture

    out = features.extract(fake(), counted(), 8)
    assert read == 0
    for done in range(1, 9):
        next(out)
        assert read == 8 * done


def test_only_what_is_asked_for_is_given_and_a_list_is_cut_too(pictures):
    assert set(next(features.extract(fake(), pictures, 16))) == {"features"}
    parts = list(features.extract(fake(), pictures, 16, keys=("maps",)))
    assert set(parts[0]) == {"maps"} and [len(m) for m in parts[-1]["maps"]] == [3, 3]
    maps = np.concatenate([part["maps"][0] for part in parts])
    np.testing.assert_array_equal(maps, pictures[:, ::2].astype(np.float32))


def test_a_program_is_compiled_once_for_all_calls(pictures):
    traces = []
    extractor = fake(traces)
    for _ in range(3):
        list(features.extract(extractor, pictures, 16))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("picture", "colour"),
    [
        (np.full((5, 4), 77, np.uint8), (77, 77, 77)),
        (np.full((5, 4, 1), 77, np.uint8), (77, 77, 77)),
        (np.tile(np.uint8([0, 51]), (5, 4, 1)), (204, 204, 204)),
        (np.tile(np.uint8([10, 20, 30]), (5, 4, 1)), (10, 20, 30)),
        (np.tile(np.uint8([255, 0, 0, 51]), (5, 4, 1)), (255, 204, 204)),  # 0.2 of red on white
        (np.full((5, 4), 100 * 257, np.uint16), (100, 100, 100)),
        (np.full((5, 4), 300, np.uint16), (1, 1, 1)),  # scaled, not clipped
        (np.tile(np.uint16([65535, 0, 128]), (5, 4, 1)), (255, 0, 0)),
        (np.tile(np.uint16([65535, 0, 0, 51 * 257]), (5, 4, 1)), (255, 204, 204)),
        (Image.new("LA", (4, 5), (0, 51)), (204, 204, 204)),
        (Image.new("P", (4, 5), 0), (0, 0, 0)),
    ],
)
def test_any_kind_of_picture_becomes_rgb(picture, colour):
    out = rgb(picture)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, np.broadcast_to(colour, (5, 4, 3)))
    item = picture if isinstance(picture, Image.Image) or picture.ndim == 2 else picture[None]
    out = gathered(features.extract(fake(), [np.zeros((5, 4, 3), np.uint8), item], 8))
    np.testing.assert_allclose(
        out[1], np.tanh(np.array(colour) / 255 @ WEIGHTS), rtol=1e-5, atol=1e-6
    )


def test_sixteen_bit_grey_is_as_pillow_pictures_are_read():
    grey = np.arange(0, 65536, 13, dtype=np.uint16)[None]
    np.testing.assert_array_equal(rgb(grey), rgb(Image.fromarray(grey)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((6, 4, 3), np.float32), r"picture 2: .*uint8.*got float32 \[6, 4, 3\]"),
        (np.zeros((6, 4, 5), np.uint8), r"picture 2: .*C from 1 .*got uint8 \[6, 4, 5\]"),
        (np.zeros((6,), np.uint8), r"picture 2: .*\[6\]"),
        (np.zeros((0, 4, 3), np.uint8), r"picture 2: .*\[0, 4, 3\]"),
        ("a.png", r"picture 2: .*got <U5"),
        (
            np.zeros((4, 6, 3), np.uint8),
            r"picture 2 is 4 x 6 \(height x width\), those before it are 6 x 4",
        ),
    ],
)
def test_what_cannot_be_stacked_is_refused(pictures, bad, message):
    with pytest.raises(ValueError, match=message):
        list(features.extract(fake(), [*pictures[:2], bad], 8))


def test_another_size_is_refused_in_a_later_batch_too(pictures):
    out = features.extract(fake(), [*pictures[:8], np.zeros((4, 4, 3), np.uint8)], 8)
    next(out)
    with pytest.raises(ValueError, match="picture 8 is 4 x 4"):
        next(out)
    with pytest.raises(ValueError, match="batch is 0"):
        next(features.extract(fake(), pictures, 0))


def test_a_folder_streams_in_the_order_of_names(tmp_path, pictures):
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name, i in {
        "a.png": 0,
        "b/c.PNG": 1,
        "d.png": 2,
        ".hidden/e.png": 3,
        "b/.f.png": 4,
    }.items():
        Image.fromarray(pictures[i][:4]).save(tmp_path / name)
    (tmp_path / "a.txt").write_text("a caption")
    found = list(features.read_folder(tmp_path, 4))
    np.testing.assert_array_equal(found, pictures[:3, :4])
    assert next(features.read_folder(str(tmp_path), 2)).shape == (2, 2, 3)
    (tmp_path / "d.png").write_bytes(b"no picture")
    stream = features.read_folder(tmp_path, 4)
    assert len([next(stream), next(stream)]) == 2  # the pictures before it are read
    with pytest.raises(ValueError, match=r"d\.png: not a readable picture"):
        next(stream)


def test_a_missing_or_empty_folder_is_reported_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        features.read_folder(tmp_path / "absent", 4)
    with pytest.raises(ValueError, match=r"no pictures.*\.png"):
        features.read_folder(tmp_path, 4)


def test_an_unknown_extractor_names_those_there_are():
    with pytest.raises(
        ValueError, match=r"no 'efficientnet' in features.*did you mean 'efficientnet_lite0'"
    ):
        features.load("efficientnet")
