"""Patches of two colours: what is made of pairs and masks is found again, and the rest is near."""

import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.data import shapes
from t2i_jax.data.render import BACKGROUND, COLOURS, draw
from t2i_jax.models import patch_codebook
from t2i_jax.models import two_colour_codebook as codebook

PAIRS = np.array([[[-0.8, -0.8, -0.8], [0.8, 0.2, -0.4]], [[-0.8, -0.8, -0.8], [-0.4, 0.9, 0.9]]])


@pytest.fixture(scope="module")
def scenes():
    """Pictures of `shapes`, uint8 [120, 32, 32, 3]."""
    return np.stack([draw(shapes.scene("train", i).objects, 32) for i in range(120)])


@pytest.fixture(scope="module")
def fitted(scenes):
    return codebook.fit(scenes, 4, pairs=9, masks=64)


def made(rng, masks):
    """(arrays, codes, pictures in [-1, 1]) of 3 x 2 patches, each of a pair and a mask."""
    arrays = {"pairs": PAIRS.astype(np.float32), "masks": masks.astype(np.float32)}
    codes = rng.integers(0, 2 * len(masks), (5, 6))
    return arrays, codes, codebook.decode(arrays, codes, (3, 2))


def test_a_code_is_a_pair_and_a_mask():
    """Closed form: a + m (b - a), pixel by pixel."""
    arrays = {"pairs": PAIRS, "masks": np.array([[0.0, 0.25, 0.5, 1.0], [1.0, 1.0, 0.0, 0.0]])}
    table = codebook.vectors(arrays)
    a, b = PAIRS[1]
    expected = np.stack([a, a + 0.25 * (b - a), (a + b) / 2, b])
    np.testing.assert_allclose(table[2].reshape(4, 3), expected, rtol=1e-6)
    picture = codebook.decode(arrays, np.array([[2, 1]]), (1, 2))[0]  # 2 x 2 pixels in a patch
    np.testing.assert_allclose(picture[:, :2].reshape(4, 3), expected, rtol=1e-6)
    np.testing.assert_allclose(picture[0, 2:], PAIRS[0][[1, 1]], rtol=1e-6)


def test_what_was_decoded_is_encoded_alike():
    rng = np.random.default_rng(0)
    arrays, codes, pictures = made(rng, rng.uniform(0, 1, (9, 16)))
    np.testing.assert_array_equal(codebook.encode(arrays, pictures), codes)


def test_a_patch_of_the_common_colour_has_one_code():
    """Both pairs have it: rounding does not choose between them."""
    arrays, _, _ = made(np.random.default_rng(1), np.eye(16))
    arrays["masks"][3] = 0
    for noise in (-1e-3, 0.0, 1e-3):
        flat = np.full((1, 4, 4, 3), -0.8 + noise)
        np.testing.assert_array_equal(codebook.encode(arrays, flat), [[3]])


def test_the_mask_is_the_nearest_for_its_pair():
    """As a search through all masks of the pair finds it."""
    rng = np.random.default_rng(2)
    arrays, _, pictures = made(rng, rng.uniform(0, 1, (9, 16)))
    noisy = jnp.asarray(pictures + rng.normal(0, 0.3, pictures.shape))
    codes = np.asarray(codebook.encode(arrays, noisy))
    table = np.asarray(codebook.vectors(arrays)).reshape(2, 9, -1)
    patches = np.asarray(patch_codebook.patches_of(noisy, 4))
    errors = ((patches[:, :, None] - table[codes // 9]) ** 2).sum(-1)
    np.testing.assert_array_equal(errors.argmin(-1), codes % 9)


def test_the_colours_of_shapes_are_found(fitted):
    """They are the background twice, then it and one of the eight colours, to a level."""
    levels = np.asarray(from_unit(jnp.asarray(fitted["pairs"]))).astype(int)
    found = sorted(map(tuple, levels[1:, 1]))
    assert levels[0].tolist() == [list(BACKGROUND)] * 2
    assert np.abs(levels[:, 0] - BACKGROUND).max() <= 1
    np.testing.assert_array_equal(fitted["masks"][:2], np.repeat([[0.0], [1.0]], 16, axis=1))
    blank = to_unit(jnp.broadcast_to(jnp.asarray(BACKGROUND, jnp.uint8), (1, 4, 4, 3)))
    assert codebook.encode(fitted, blank) // 64 == 0
    assert np.abs(np.array(found) - sorted(COLOURS.values())).max() <= 1


def test_it_is_nearer_than_a_codebook_of_whole_patches(scenes, fitted):
    """With as many vectors to fit: 64 masks and 9 pairs, against 73 patches."""
    images = to_unit(jnp.asarray(scenes))
    whole = patch_codebook.fit(scenes, 4, 73)
    ours = codebook.decode(fitted, codebook.encode(fitted, images), (8, 8))
    other = patch_codebook.decode(whole, patch_codebook.encode(whole, images), (8, 8))
    assert jnp.square(ours - images).mean() < 0.5 * jnp.square(other - images).mean()
    again = codebook.fit(scenes, 4, pairs=9, masks=64)
    for name in fitted:
        np.testing.assert_array_equal(again[name], fitted[name])


def test_too_few_patches_are_refused():
    with pytest.raises(ValueError, match=r"image_tokenizer\.codes is 8"):
        codebook.fit(np.zeros((2, 8, 8, 3), np.uint8), 4, pairs=2, masks=4)
