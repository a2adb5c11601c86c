"""k-means on patches: exact where this is possible, else about as good as SciPy's."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.cluster.vq import kmeans2

from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.models import patch_codebook as codebook


def images_of(patches, rng, count=6):
    """Return (pictures [count, 8, 8, 3] made of patches [K, 4, 4, 3], index of each patch)."""
    codes = rng.integers(0, len(patches), (count, 2, 2))
    codes.flat[: len(patches)] = np.arange(len(patches))
    pictures = patches[codes].transpose(0, 1, 3, 2, 4, 5).reshape(count, 8, 8, 3)
    return pictures, codes.reshape(count, 4)


def test_as_many_codes_as_patches_is_lossless():
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (9, 4, 4, 3)).astype(np.uint8)
    pictures, where = images_of(patches, rng)
    book = codebook.fit(pictures, 4, 9)
    codes = codebook.encode(book, to_unit(jnp.asarray(pictures)))
    np.testing.assert_array_equal(from_unit(codebook.decode(book, codes, (2, 2))), pictures)
    same = np.asarray(codes)[..., None, None] == np.asarray(codes)
    np.testing.assert_array_equal(same, where[..., None, None] == where)


def test_clusters_are_found_about_as_well_as_by_scipy():
    rng = np.random.default_rng(1)
    centres = rng.integers(40, 216, (8, 4, 4, 3))
    patches = np.clip(
        np.repeat(centres, 30, axis=0) + rng.normal(0, 4, (240, 4, 4, 3)), 0, 255
    ).astype(np.uint8)
    pictures, _ = images_of(patches, rng, 60)
    points = np.asarray(to_unit(jnp.asarray(patches))).reshape(240, -1)

    def error(book):
        return ((points[:, None] - book[None]) ** 2).sum(-1).min(1).mean()

    ours = min(error(codebook.fit(pictures, 4, 8, seed=seed, iterations=30)) for seed in range(4))
    best = min(error(kmeans2(points, 8, minit="++", seed=seed)[0]) for seed in range(4))
    assert ours < 1.02 * best


def test_the_same_seed_gives_the_same_codebook():
    pictures = np.random.default_rng(2).integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)
    first = codebook.fit(pictures, 4, 5, seed=1)
    np.testing.assert_array_equal(first, codebook.fit(pictures, 4, 5, seed=1))
    assert (first != codebook.fit(pictures, 4, 5, seed=2)).any()


def test_encode_finds_the_nearest_code():
    rng = np.random.default_rng(3)
    book = rng.normal(size=(20, 48)).astype(np.float32)
    pictures = rng.uniform(-1, 1, (3, 8, 8, 3)).astype(np.float32)
    flat = pictures.reshape(3, 2, 4, 2, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(3, 4, 48)
    expected = ((flat[:, :, None] - book) ** 2).sum(-1).argmin(-1)
    np.testing.assert_array_equal(codebook.encode(book, pictures), expected)


def test_invalid_input_raises_errors():
    flat = np.zeros((4, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="have 1"):
        codebook.fit(flat, 4, 2)
    with pytest.raises(ValueError, match="patches of 3"):
        codebook.fit(flat, 3, 2)
