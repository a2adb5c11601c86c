"""Pictures enlarged in tiles: equal to the whole picture's result, and few programs."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.runs.upscaled import upscale_in_tiles


class Around:
    """An "ability" of scale 2 whose pixels are the largest of those up to `reach` px away.

    What is beyond the border of its input is 0, as in a convolution.
    """

    def __init__(self, reach):
        self.reach, self.shapes = reach, set()

    def __call__(self, inputs, keys, settings):
        x, r = inputs["image"], self.reach
        self.shapes.add(x.shape)
        padded = np.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * r + 1, 2 * r + 1), (1, 2))
        return jnp.asarray(windows.max((4, 5)).repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (33, 16), (61, 45), (16, 100)])
def test_the_result_is_that_of_the_whole_picture(size):
    picture = np.random.default_rng(0).integers(0, 250, (*size, 3)).astype(np.uint8)
    expected = np.asarray(Around(3)({"image": picture[None]}, None, {}))[0]
    ability = Around(3)
    found = upscale_in_tiles(ability, picture, tile=16, margin=3)
    np.testing.assert_array_equal(found, expected)
    assert ability.shapes == {(1, 16, 16, 3)}
    seen_too_far = upscale_in_tiles(Around(6), picture, tile=16, margin=3)
    is_tiled = max(size) > 16
    whole = np.asarray(Around(6)({"image": picture[None]}, None, {}))[0]
    assert (seen_too_far != whole).any() == is_tiled  # the margin matters


@pytest.mark.parametrize(
    ("size", "tile"), [((1, 1), (1, 1)), ((5, 16), (8, 16)), ((9, 3), (16, 4))]
)
def test_a_picture_smaller_than_a_tile_is_filled_up_with_its_border(size, tile):
    picture = np.random.default_rng(0).integers(0, 250, (*size, 3)).astype(np.uint8)
    ability = Around(0)
    found = upscale_in_tiles(ability, picture, tile=16, margin=3)
    np.testing.assert_array_equal(found, picture.repeat(2, 0).repeat(2, 1))
    assert ability.shapes == {(1, *tile, 3)}


@pytest.mark.parametrize("sides", [(64, 64), (300, 70), (300, 300)])
def test_memory_is_that_of_one_tile_beside_the_picture_and_the_result(sides):
    """On the device, and on the host."""
    picture, on_device = np.zeros((*sides, 3), np.uint8), []

    def enlarge(inputs, keys, settings):
        made = jnp.asarray(inputs["image"].repeat(2, 1).repeat(2, 2))
        on_device.append(sum(x.nbytes for x in jax.live_arrays()) - before)
        return made

    before = sum(x.nbytes for x in jax.live_arrays())
    upscale_in_tiles(enlarge, picture[:16, :16], tile=16, margin=3)  # what JAX loads at first
    on_device.clear()
    before = sum(x.nbytes for x in jax.live_arrays())
    tracemalloc.start()
    found = upscale_in_tiles(enlarge, picture, tile=16, margin=3)
    host = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(on_device) >= 36 and max(on_device) <= 2 * (32 * 32 * 3)  # this tile, and the last
    little = 50_000 + 100 * len(on_device)  # the tile, and some numbers of each
    assert found.nbytes < host < found.nbytes + picture.nbytes + little
