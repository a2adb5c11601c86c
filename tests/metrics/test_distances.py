"""Distances against SciPy, and copies at a distance of exactly zero."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from t2i_jax.metrics.distances import (
    checked,
    mean_distance,
    nearest,
    squared_distances,
    tiles,
    unit_length,
)

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(50, 7)), RNG.normal(size=(33, 7))


def test_distances_are_those_of_scipy():
    np.testing.assert_allclose(squared_distances(A, B), cdist(A, B) ** 2, rtol=1e-12)
    np.testing.assert_allclose(
        mean_distance(A), cdist(A, A)[~np.eye(50, dtype=bool)].mean(), rtol=1e-12
    )


def test_copies_are_at_distance_zero_and_others_are_not():
    far = A.astype(np.float32).astype(np.float64) * 1000 + 300
    assert (np.diag(squared_distances(far, far.copy())) == 0).all()
    moved = far + 1e-4 * np.linalg.norm(far, axis=1, keepdims=True) * unit_length(A)
    assert (np.diag(squared_distances(far, moved)) > 0).all()


@pytest.mark.parametrize("tile", [1, 7, 64])
def test_the_nearest_are_found_whatever_the_tiles(tile):
    distance, index = nearest(A, B, 4, tile)
    expected = cdist(A, B)
    np.testing.assert_array_equal(index, np.argsort(expected, axis=1)[:, :4])
    np.testing.assert_allclose(distance, np.sort(expected, axis=1)[:, :4], rtol=1e-12)


def test_tiles_cover_a_matrix_once():
    covered = np.zeros((10, 7), int)
    for i, j in tiles(10, 7, 4):
        covered[i, j] += 1
        assert covered[i, j].size <= 16
    assert (covered == 1).all()


def test_bad_features_are_named():
    bad = A.copy()
    bad[[3, 9], [1, 0]] = np.nan, np.inf
    with pytest.raises(
        ValueError, match="2 of 50 rows of these hold NaN or infinity, the first is row 103"
    ):
        checked(bad, "these", first=100)
    with pytest.raises(ValueError, match=r"must be of shape \[N, D\], not \[50\]"):
        checked(A[:, 0])
    with pytest.raises(ValueError, match="at least 60 samples are needed, there are 50"):
        checked(A, least=60)
    with pytest.raises(ValueError, match="row 1 of features is zero"):
        unit_length(A * (np.arange(50) != 1)[:, None])
