"""Training pictures of several sizes: which size each has, and which of them make a batch."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from t2i_jax.core.source import Buckets, Source
from t2i_jax.data import buckets, folder, loader, pictures


def config(path="", sizes=(), resolution=16):
    return ConfigDict(
        {"name": "folder", "path": str(path), "resolution": resolution, "sizes": sizes}
    )


def test_sizes_are_width_x_height():
    assert buckets.sizes_of(config(sizes=("64x32", "16x48"))) == [(32, 64), (48, 16)]
    assert buckets.sizes_of(config()) == []


@pytest.mark.parametrize("wrong", ["64", "64x", "0x8", "64 x 32", "-8x8", 64])
def test_other_spellings_are_refused(wrong):
    with pytest.raises(ValueError, match="a size is width x height"):
        buckets.sizes_of(config(sizes=("8x8", wrong)))


def test_the_same_size_twice_is_refused():
    with pytest.raises(ValueError, match="8x16 twice"):
        buckets.sizes_of(config(sizes=("8x16", "16x16", "8x16")))


def test_each_example_has_the_nearest_shape_and_unused_sizes_go():
    """Nearest in the ratio: 1.4 is nearer to 2 than to 1, since 2 / 1.4 > 1.4 / 1 is false."""
    sizes = [(8, 8), (8, 16), (16, 8), (8, 64)]
    made = buckets.make_buckets(sizes, [1.0, 1.43, 1.40, 0.5, 30.0], lambda h, w: (h, w).__add__)
    assert made.sizes == sizes and made.bucket_of.tolist() == [0, 1, 0, 2, 3]
    made = buckets.make_buckets(sizes, [0.6, 1.9], lambda h, w: lambda index: (h, w, list(index)))
    assert made.sizes == [(8, 16), (16, 8)] and made.bucket_of.tolist() == [1, 0]
    assert made.read(np.array([1])) == (8, 16, [1])
    assert buckets.make_buckets([], [1.0], None) is None


def numbered(counts):
    """Return buckets of so many examples each, in mixed order."""
    bucket_of = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    sizes = [(8, 8 * (i + 1)) for i in range(len(counts))]

    def read(positions):
        _, width = sizes[bucket_of[positions[0]]]
        return np.zeros((len(positions), 8, width, 3), np.uint8)

    return Buckets(sizes, bucket_of, read)


def test_each_batch_has_one_size_and_an_epoch_has_whole_batches_of_different_examples():
    made = numbered([9, 4, 6])
    order = buckets.batch_order(made, 4, seed=3)
    for epoch in range(3):
        batches = [order(step) for step in range(epoch * 4, epoch * 4 + 4)]
        assert all(len(set(made.bucket_of[batch])) == 1 for batch in batches)
        examples = np.concatenate(batches)
        assert len(set(examples)) == 16
        assert np.bincount(made.bucket_of[examples]).tolist() == [8, 4, 4]


def test_the_order_is_a_function_of_seed_and_step_and_no_example_is_left_out_for_good():
    made = numbered([9, 4, 6])
    order, again = (buckets.batch_order(made, 4, seed=3) for _ in range(2))
    seen = [order(step) for step in range(80)]
    for step in (61, 3, 79, 40):  # in any order
        np.testing.assert_array_equal(again(step), seen[step])
    other = buckets.batch_order(made, 4, seed=4)
    assert any((other(step) != seen[step]).any() for step in range(4))
    times = np.bincount(np.concatenate(seen))
    assert len(times) == 19 and times.min() >= 5  # 20 epochs: expected 17.8, 20 and 13.3 times
    sizes = [made.bucket_of[batch[0]] for batch in seen[:20]]
    assert sizes != sorted(sizes)


def test_the_loader_reads_pictures_of_that_size_and_the_rows_asked_for():
    made = numbered([9, 4, 6])
    source = Source([""] * 19, lambda index: pytest.fail("squares"), "f", buckets=made)
    column = {"number": np.arange(19) * 10}
    whole = list(loader.batches(source, column, 4, 3, 0, 6, reader="threads"))
    order = buckets.batch_order(made, 4, 3)
    for step, batch in enumerate(whole):
        np.testing.assert_array_equal(batch["index"], order(step))
        np.testing.assert_array_equal(batch["number"], order(step) * 10)
        assert batch["image"].shape[1:3] == made.sizes[made.bucket_of[order(step)[0]]]
    rows = list(loader.batches(source, column, 4, 3, 2, 6, np.array([1, 3]), reader="threads"))
    for part, batch in zip(rows, whole[2:], strict=True):
        np.testing.assert_array_equal(part["index"], batch["index"][[1, 3]])
        assert part["image"].shape[1:] == batch["image"].shape[1:]


def test_a_size_with_fewer_pictures_than_a_batch_is_refused():
    buckets.check_batches(numbered([9, 4, 6]), 4)
    with pytest.raises(ValueError, match=r"16x8 is the nearest size of 4 training pictures, .* 5"):
        buckets.check_batches(numbered([9, 4, 6]), 5)


def test_a_picture_is_cut_to_the_shape_about_its_centre():
    """Left to right: red, then green, then blue, a third each."""
    bands = np.zeros((30, 90, 3), np.uint8)
    for i in range(3):
        bands[:, 30 * i : 30 * i + 30, i] = 255
    image = Image.fromarray(bands)
    red, green, blue = np.eye(3) * 255

    def is_all(pixels, colour):  # the filter overshoots a little beside an edge
        return np.abs(pixels - colour).max() < 20

    square = pictures.fit(image, 10, 10)
    assert is_all(square[:, 2:8], green)
    wide = pictures.fit(image, 10, 30)
    assert wide.shape == (10, 30, 3)
    assert is_all(wide[:, 1], red) and is_all(wide[:, 15], green) and is_all(wide[:, -2], blue)
    half = pictures.fit(image, 10, 20)  # a sixth is cut off at each side
    assert is_all(half[:, 2], red) and is_all(half[:, 7:13], green)
    tall = pictures.fit(image.rotate(90, expand=True), 10, 10)
    assert is_all(tall[2:8], green)


def test_a_folder_gives_its_pictures_in_their_sizes(tmp_path):
    rows = []
    for i in range(8):
        wide = i % 2 == 0
        grey = np.full((20, 40) if wide else (40, 20), 30 * i, np.uint8)
        Image.fromarray(grey).save(tmp_path / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": f"{i}"})
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plain = folder.make(config(tmp_path), "train")
    sized = folder.make(config(tmp_path, ("32x16", "16x32", "64x8")), "train")
    assert plain.buckets is None and plain.fingerprint != sized.fingerprint
    index = np.arange(len(sized.captions))
    np.testing.assert_array_equal(plain.read(index), sized.read(index))  # squares, as they were
    assert sized.buckets.sizes == [(16, 32), (32, 16)]
    for i, caption in enumerate(sized.captions):
        picture = sized.buckets.read(np.array([i]))[0]
        assert picture.shape == ((16, 32, 3) if int(caption) % 2 == 0 else (32, 16, 3))
        assert (picture == 30 * int(caption)).all()
