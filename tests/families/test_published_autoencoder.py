"""The autoencoder in tiles: near to the whole picture, and what is refused."""

import jax
import numpy as np
import pytest

from t2i_jax import config as configs
from t2i_jax.families.published_autoencoder import make_autoencoder, make_latents
from t2i_jax.models.autoencoder_kl import param_shapes
from tests.conftest import ROOT
from tests.tiny_stable_diffusion import random_params

CONFIG = configs.load(f"{ROOT}/configs/stable_diffusion.py:smoke", ())


def test_tiles_are_near_to_the_whole_picture():
    """Norms and attention look at a tile instead of the whole. Random weights and latents."""
    params = random_params(param_shapes(make_autoencoder(CONFIG)), 1)
    z = np.random.default_rng(0).normal(size=(1, 48, 48, 4)).astype(np.float32)
    whole, tiled = (make_latents(CONFIG, 96, 96, tile=tile) for tile in (0, 32))
    drawn, again = (np.asarray(jax.jit(each.decode)(params, z), int) for each in (whole, tiled))
    assert 0 < np.abs(again - drawn).mean() < 0.2 * drawn.std()
    # No seam: the difference between neighbours is not larger where tiles meet.
    jumps = np.abs(np.diff(again, axis=1)).mean((0, 2, 3))
    assert jumps.max() < 1.3 * np.abs(np.diff(drawn, axis=1)).mean((0, 2, 3)).max()


def test_one_tile_is_the_whole():
    whole, tiled = (make_latents(CONFIG, 16, 16, tile=tile) for tile in (0, 8))
    z = jax.ShapeDtypeStruct((1, 8, 8, 4), np.float32)
    params = param_shapes(make_autoencoder(CONFIG))
    one, other = (str(jax.make_jaxpr(each.decode)(params, z)) for each in (whole, tiled))
    assert one == other


def test_too_small_a_tile():
    with pytest.raises(ValueError, match="tile is 3: it must be at least 4, or 0 for no tiles"):
        make_latents(CONFIG, 64, 64, tile=3)
