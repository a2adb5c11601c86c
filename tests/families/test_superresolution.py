"""Super-resolution: its losses against their formulas, degradations, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax.core.family import Context, Variables
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.data.degradation import enlarge, shrink
from t2i_jax.families import superresolution
from t2i_jax.metrics.similarity import psnr

KEYS = jax.random.split(jax.random.key(3), 4)
DISCRIMINATOR = ("discriminator.width=4", "discriminator.levels=2")
SETTINGS = {"scale": 2, "blur": 0.0, "noise": 0.0}


def stripes():
    """Pictures of hard edges, uint8 [4, 32, 32, 3]: bicubic enlargement blurs them."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (4, 2, 3))
    places = (np.arange(32) + rng.integers(0, 8, (4, 1))) // 4 % 2
    rows = colours[np.arange(4)[:, None], places]
    return np.repeat(rows[:, :, None], 32, axis=2).astype(np.uint8)


@pytest.fixture
def make(smoke):
    """make("superresolution.scale=4", ...) -> (family, params)."""

    def build(*overrides):
        config = smoke("emoji_superresolution", *overrides)
        family = superresolution.make(config)
        return family, jax.jit(lambda: family.init(jax.random.key(0), {})[0])()

    return build


def context(train=True):
    return Context({}, {}, {}, jnp.int32(0), {"image": stripes()}, KEYS, train)


def test_the_loss_of_an_untrained_model_is_that_of_bicubic_enlargement(make):
    family, params = make()
    loss, (_, metrics) = jax.jit(lambda p: family.losses["model"](p, context()))(params)
    low = from_unit(shrink(to_unit(stripes()), 2))  # eight bits, as a user's picture has
    error = np.asarray(enlarge(to_unit(low), 2) - to_unit(stripes()))
    np.testing.assert_allclose(loss, np.abs(error).mean((1, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(metrics["l2"], np.square(error).mean((1, 2, 3)), atol=1e-6)
    upscaled = family.abilities["upscale"](Variables(params, {}, {}), {"image": low}, None)
    np.testing.assert_array_equal(upscaled, from_unit(enlarge(to_unit(low), 2)))


def test_degradations_are_of_each_picture_and_its_key():
    image, keys = stripes(), KEYS
    plain = superresolution.degrade(image, keys, SETTINGS)
    others = superresolution.degrade(image, keys[::-1], SETTINGS)
    np.testing.assert_array_equal(plain, others)
    for change in ({"blur": 3.0}, {"noise": 50.0}):
        degrade = jax.jit(functools.partial(superresolution.degrade, settings=SETTINGS | change))
        worse = degrade(image, keys)
        assert worse.shape == (4, 16, 16, 3) and (worse != plain).any((1, 2, 3)).all()
        again = degrade(image[::-1], keys[::-1])
        np.testing.assert_array_equal(worse, again[::-1])


def test_the_players_want_opposite_things(make):
    """The discriminator's loss is softplus(fake - real), the model's adds softplus(real - fake)."""
    family, params = make("superresolution.adversarial=0.5", *DISCRIMINATOR)
    assert list(family.losses) == ["model", "discriminator"] and not family.lower_loss_is_better

    @jax.jit
    def both(params):
        return [loss(params, context())[0] for loss in family.losses.values()]

    model, other = both(params)
    measured = family.losses["model"](params, context(train=False))[0]
    fooled = (np.asarray(model) - np.asarray(measured)) / 0.5
    # softplus(d) - softplus(-d) = d: means over the patches of the logits' difference
    net = superresolution.patch_discriminator.PatchDiscriminator(width=4, levels=2)
    low = superresolution.degrade(stripes(), KEYS, SETTINGS)
    pictures = (to_unit(stripes()), enlarge(to_unit(low), 2))
    real, fake = (net.apply({"params": params["discriminator"]}, x) for x in pictures)
    difference = np.asarray(real - fake)
    np.testing.assert_allclose(fooled - other, difference.mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(other, np.log1p(np.exp(-difference)).mean((1, 2)), atol=1e-5)


def test_it_learns_hard_edges(make):
    """60 steps on four pictures of stripes give at least 1 dB over bicubic enlargement."""
    family, params = make("model.width=16")
    optimizer = optax.adam(1e-2)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        gradients = jax.grad(lambda p: family.losses["model"](p, context())[0].mean())(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state

    for _ in range(60):
        params, state = step(params, state)
    low = superresolution.degrade(stripes(), KEYS, SETTINGS)
    found = family.abilities["upscale"](Variables(params, {}, {}), {"image": low}, None)
    bicubic = psnr(np.asarray(from_unit(enlarge(to_unit(low), 2))), stripes())
    assert (psnr(np.asarray(found), stripes()) - bicubic).mean() > 1.0


def test_refusals(make, smoke):
    with pytest.raises(ValueError, match=r"scale is 3: it has to divide data\.resolution.* is 32"):
        make("superresolution.scale=3")
    with pytest.raises(ValueError, match=r"superresolution\.scale"):
        smoke("emoji_superresolution", "superresolution.scale=5")
    with pytest.raises(ValueError, match="edsr or residual_dense"):
        smoke("emoji_superresolution", "model.network=edsrr")
