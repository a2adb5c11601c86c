"""Principal components of whole pictures."""

import numpy as np
import pytest

from t2i_jax.core.pictures import to_unit
from t2i_jax.models import eigenpictures

SHAPE = (4, 6, 3)


@pytest.fixture(scope="module")
def images():
    """Nine pictures of noise."""
    return np.random.default_rng(0).integers(0, 256, (9, *SHAPE)).astype(np.uint8)


def decoded(arrays, latents):
    return np.asarray(eigenpictures.decode(arrays, latents, SHAPE))


def test_enough_components_give_the_fitted_pictures_back(images):
    """Nine pictures differ in eight directions; further components are left out."""
    x = np.asarray(to_unit(images))
    for components in (8, 20):
        arrays = eigenpictures.fit(images, components)
        latents = np.asarray(eigenpictures.encode(arrays, x))
        assert latents.shape == (9, 1, 1, components)
        np.testing.assert_allclose(decoded(arrays, latents), x, atol=1e-5)
        np.testing.assert_allclose(latents.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(latents[..., :8].std(0), 1, atol=1e-5)
        assert not latents[..., 8:].any()


def test_components_are_those_of_a_singular_value_decomposition(images):
    arrays = eigenpictures.fit(images, 3)
    flat = np.asarray(to_unit(images), np.float64).reshape(9, -1)
    _, values, rows = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    np.testing.assert_allclose(arrays["deviation"], values[:3] / 3, rtol=1e-5)
    np.testing.assert_allclose(abs(rows[:3] @ arrays["basis"]), np.eye(3), atol=1e-5)


def test_another_picture_becomes_the_nearest_that_the_components_can_show(images):
    """What is left is orthogonal to all of them."""
    arrays = eigenpictures.fit(images, 5)
    other = np.random.default_rng(1).uniform(-1, 1, (1, *SHAPE)).astype(np.float32)
    left = other - decoded(arrays, eigenpictures.encode(arrays, other))
    assert abs(left).max() > 0.1
    np.testing.assert_allclose(left.reshape(-1) @ arrays["basis"], 0, atol=1e-5)


def test_pictures_that_are_all_alike_have_no_components(images):
    arrays = eigenpictures.fit(np.repeat(images[:1], 3, 0), 2)
    x = np.asarray(to_unit(images[:1]))
    assert not arrays["basis"].any() and not np.asarray(eigenpictures.encode(arrays, x)).any()
    np.testing.assert_allclose(decoded(arrays, np.ones((1, 1, 1, 2))), x, atol=1e-6)
