"""Features of real pictures are computed once."""

import numpy as np

from t2i_jax.evaluation.picture_features import cached_features
from tests.evaluation.fakes import CELLS, cell_means


def test_features_of_real_pictures_are_kept(trials, tmp_path, monkeypatch):
    """Computed once for the same extractor, pictures and positions, and again for any other."""
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    counts, read = [], trials[0].source.read
    source = trials[0].source._replace(read=lambda index: counts.append(len(index)) or read(index))
    first = [cached_features(CELLS, source, np.arange(5))["features"] for _ in range(2)]
    np.testing.assert_array_equal(first[0], first[1])
    np.testing.assert_allclose(first[0], cell_means({}, read(np.arange(5)))["features"], rtol=1e-6)
    cached_features(CELLS, source, np.arange(6))
    cached_features(CELLS, source._replace(fingerprint="other"), np.arange(5))
    cached_features(CELLS._replace(weights={"w": np.ones(1)}), source, np.arange(5))
    assert counts == [5, 6, 5, 5]
    assert not list(tmp_path.rglob("incomplete-*"))
