"""Tiles: exact for what depends on a cell alone, a straight line between neighbours, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.tiles import in_tiles, starts_of, weights_of


@pytest.mark.parametrize("side", [8, 9, 13, 14, 20, 33])
@pytest.mark.parametrize(("tile", "overlap"), [(8, 2), (8, 3), (5, 1)])
def test_tiles_cover_a_side_and_their_weights_have_the_sum_1(side, tile, overlap):
    starts = starts_of(side, tile, overlap)
    assert starts[0] == 0 and starts[-1] == side - tile
    assert (np.diff(starts) <= tile - overlap).all() and (np.diff(starts) > 0).all()
    assert len(starts) == 1 or side > tile + (len(starts) - 2) * (tile - overlap)  # no more
    sums = np.zeros(side)
    for start, weights in zip(starts, weights_of(side, starts, tile, overlap), strict=True):
        sums[start : start + tile] += weights
    np.testing.assert_allclose(sums, 1.0, rtol=1e-6)


def test_what_depends_on_its_own_cell_alone_is_exact():
    x = np.random.default_rng(0).normal(size=(2, 10, 14, 3)).astype(np.float32)
    decoded = in_tiles(lambda z: jnp.sin(z).repeat(2, 1).repeat(2, 2), x, 4, 1, outer=2)
    np.testing.assert_allclose(decoded, np.sin(x).repeat(2, 1).repeat(2, 2), atol=1e-6)

    def encode(pictures):
        b, h, w, c = pictures.shape
        return pictures.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))

    np.testing.assert_allclose(in_tiles(encode, x, 4, 1, inner=2), encode(x), atol=1e-6)


def test_neighbours_are_joined_by_a_straight_line():
    """A network that gives the mean of its input: 0 in the first tile, 1 in the last."""
    x = jnp.zeros((1, 3, 12, 1)).at[:, :, 8:].set(1.0)

    def mean(tile):
        assert tile.shape == (1, 3, 8, 1)  # the shorter side is one tile
        return jnp.zeros_like(tile) + jnp.round(tile.mean())

    x = x.at[:, :, 4:8].set(0.5)  # where both lie: means 0.25 and 0.75
    found = in_tiles(mean, x, 8, 3)
    # The last tile starts at 4; its weight rises from 0, and the first one's falls by thirds.
    rise, fall = np.array([0, 1, 2, 3]) / 3, np.array([3, 3, 2, 1]) / 3
    expected = [0.0] * 4 + [*rise / (rise + fall)] + [1.0] * 4
    np.testing.assert_allclose(found[0, :, :, 0], [expected] * 3, atol=1e-6)


def test_memory_is_that_of_a_tile():
    kernel = jnp.ones((3, 3, 8, 8)) / 72

    def network(x):
        for _ in range(2):
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=DIMS)
        return x[..., :1]

    def temporary(function):
        x = jax.ShapeDtypeStruct((1, 256, 256, 8), jnp.float32)
        analysis = jax.jit(function).lower(x).compile().memory_analysis()
        return 0 if analysis is None else analysis.temp_size_in_bytes

    whole, tiled = temporary(network), temporary(lambda x: in_tiles(network, x, 64, 16))
    assert 0 < tiled < whole / 4


DIMS = ("NHWC", "HWIO", "NHWC")


def test_tiles_that_share_half_of_themselves_are_refused():
    with pytest.raises(ValueError, match="tiles of 8 cells cannot share 4"):
        in_tiles(lambda x: x, np.zeros((1, 8, 8, 1), np.float32), 8, 4)
