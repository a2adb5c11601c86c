"""Super-resolution by diffusion: its loss against the formula, its noise, tiles, and learning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax.core.family import Context, Variables
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.data.degradation import enlarge, shrink
from t2i_jax.families import superresolution_diffusion as sr
from t2i_jax.metrics.similarity import psnr
from t2i_jax.runs.batches import run_ability
from t2i_jax.runs.upscaled import upscale_each, upscale_in_tiles

KEYS = jax.random.split(jax.random.key(3), 4)


def squares():
    """Pictures of hard edges, uint8 [4, 16, 16, 3]: bicubic enlargement blurs them."""
    rng = np.random.default_rng(0)
    pictures = np.zeros((4, 16, 16, 3), np.uint8)
    for picture in pictures:
        top, left = rng.integers(1, 8, 2)
        picture[:], picture[top : top + 7, left : left + 7] = rng.integers(0, 256, (2, 3))
    return pictures


@pytest.fixture
def make(smoke):
    """make("upscale.steps=4", ...) -> (family, params)."""

    def build(*overrides):
        family = sr.make(smoke("shapes_superresolution", "data.resolution=16", *overrides))
        return family, jax.jit(lambda: family.init(jax.random.key(0), {})[0])()

    return build


def context():
    return Context({}, {}, {}, jnp.int32(0), {"image": squares()}, KEYS, True)


def test_the_loss_of_an_untrained_model_is_the_mean_square_of_the_detail(make):
    """Its output is 0."""
    family, params = make("superresolution.augmentation=0")
    loss, _ = jax.jit(lambda p: family.losses["model"](p, context()))(params)
    small = to_unit(from_unit(shrink(to_unit(squares()), 2)))
    x0 = (to_unit(squares()) - enlarge(small, 2)) / sr.SPREAD
    # A rounded level may be the next one under another compilation.
    np.testing.assert_allclose(loss, np.square(x0).mean((1, 2, 3)), rtol=1e-2)


def test_noise_depends_on_the_place_in_the_whole_picture():
    noise = jax.jit(sr.placed_noise, static_argnums=2)
    whole = noise(KEYS[:2], jnp.zeros((2, 2), jnp.int32), (40, 30))
    part = noise(KEYS[:2], jnp.array([[3, 5], [20, 10]]), (8, 6))
    np.testing.assert_array_equal(part[0], whole[0, 3:11, 5:11])
    np.testing.assert_array_equal(part[1], whole[1, 20:28, 10:16])
    # Standard normal: bounds of five standard errors.
    count = whole.size
    assert abs(whole.mean()) < 5 / count**0.5 and abs(whole.var() - 1) < 5 * (2 / count) ** 0.5
    rows = np.asarray(whole)
    assert abs((rows[:, 1:] * rows[:, :-1]).mean()) < 5 / count**0.5  # and independent


def test_tiles_are_those_of_the_whole_picture(make):
    family, params = make("upscale.steps=1", "model.width=4", "superresolution.augmentation=0.5")
    params = jax.tree.map(lambda x: x + 0.01, params)
    run = functools.partial(run_ability, family.abilities["upscale"], Variables(params, {}, {}))
    picture = np.random.default_rng(1).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    keys = jax.random.split(jax.random.key(7), 1)
    whole = np.asarray(run({"image": picture[None]}, keys, {}))[0]
    tiled = upscale_in_tiles(run, picture, keys, tile=32, margin=8)
    assert np.abs(tiled.astype(int) - whole).max() <= 1
    assert 20 < whole.mean() < 235 and whole.std() > 20  # not cut off at 0 or 255
    seeds = (0, 0, 1)
    one, same, other = (np.asarray(upscale_each(run, [picture], seed)[0]) for seed in seeds)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_it_draws_hard_edges(make):
    """100 steps on four pictures give at least 1 dB over bicubic enlargement."""
    family, params = make("superresolution.augmentation=0", "model.width=24", "upscale.steps=4")
    optimizer = optax.adam(3e-3)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, number):
        keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(KEYS)
        told = context()._replace(keys=keys)
        gradients = jax.grad(lambda p: family.losses["model"](p, told)[0].mean())(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state

    for number in range(100):
        params, state = step(params, state, number)
    small = from_unit(shrink(to_unit(squares()), 2))
    found = family.abilities["upscale"](Variables(params, {}, {}), {"image": small}, KEYS)
    bicubic = psnr(np.asarray(from_unit(enlarge(to_unit(small), 2))), squares())
    assert (psnr(np.asarray(found), squares()) - bicubic).mean() > 1.0


def test_refusals(make):
    with pytest.raises(ValueError, match=r"scale is 3: it has to divide data\.resolution.* is 16"):
        make("superresolution.scale=3")
    with pytest.raises(
        ValueError, match=r"upscale\.augmentation is 0\.5: it can be at most .* 0\.3"
    ):
        make("upscale.augmentation=0.5")
