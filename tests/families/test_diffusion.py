"""Diffusion: the loss against its formula, independent samples, and a tiny model that learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from t2i_jax import config as configs
from t2i_jax.core.family import Context, Variables
from t2i_jax.core.pictures import to_unit
from t2i_jax.core.random import split_keys
from t2i_jax.families import diffusion
from t2i_jax.families.load import load_family
from t2i_jax.models.layers import sine_time
from tests.conftest import ROOT

NULL = {"transformer": {"tokens": np.array([1, 0, 0]), "mask": np.array([True, False, False])}}
FROZEN = {"null_text": NULL}
COLOURS = np.array([[230, 30, 30], [30, 30, 230]], np.uint8)


def _config(**sections):
    config = ConfigDict(
        {
            "data": {"resolution": 8},
            "first_stage": {"run": "", "config": {}},
            "reranker": {"run": ""},
            "text": {
                "encoder": "transformer",
                "length": 3,
                "vocab_size": 8,
                "width": 16,
                "depth": 0,
            },
            "model": {
                "network": "dit",
                "patch": 4,
                "width": 32,
                "depth": 1,
                "heads": 2,
                "gate_init": 0.5,
            },
            "caption_dropout": 0.1,
            "parallel": {"remat": "none"},
        }
    )
    for name, value in sections.items():
        config[name] = value
    return config


def _batch(size=4):
    word = np.arange(size) % 2
    tokens = np.stack([word + 2, np.ones_like(word), np.zeros_like(word)], 1)
    image = np.broadcast_to(COLOURS[word][:, None, None], (size, 8, 8, 3))
    text = {
        "transformer": {"tokens": jnp.asarray(tokens, jnp.int32), "mask": jnp.asarray(tokens > 0)}
    }
    return {"image": jnp.asarray(image), "text": text}


def _keys(size=4, seed=0):
    return jax.random.split(jax.random.key(seed), size)


def _context(batch, keys, train=True):
    return Context({}, FROZEN, None, jnp.array(0), batch, keys, train)


@functools.cache
def _trained():
    """A red or a blue picture for the captions 2 and 3, after 200 steps on a batch of 16."""
    family, batch = diffusion.make(_config()), _batch(16)
    params, _ = jax.jit(family.init)(jax.random.key(0), batch)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def train(params, state):
        def step(carry, i):
            params, state = carry
            keys = jax.random.split(jax.random.fold_in(jax.random.key(1), i), 16)
            gradients = jax.grad(
                lambda p: family.losses["model"](p, _context(batch, keys))[0].mean()
            )(params)
            updates, state = optimizer.update(gradients, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), jnp.arange(200))[0][0]

    return family, train(params, optimizer.init(params))


def _sample(family, params, keys, text, **settings):
    settings = {**family.settings["sample"], "steps": 4, **settings}
    static = {name: settings.pop(name) for name in family.static if name in settings}
    assert [settings.pop(name) for name in family.texts] == [""]
    function = jax.jit(functools.partial(family.abilities["sample"], **static))
    return function(Variables(params, {}, FROZEN), {"text": text}, keys, **settings)


@pytest.mark.parametrize("kind", ["velocity", "x0"])
def test_the_first_loss_is_the_mean_square_of_the_target(kind):
    """A fresh network predicts zero; the target is x0 or noise - x0."""
    family = diffusion.make(_config(diffusion={"parameterization": kind, "time": "uniform"}))
    batch, keys = _batch(), _keys()
    params, extra = jax.jit(family.init)(jax.random.key(0), batch)
    per_example, (_, metrics) = jax.jit(
        lambda p: family.losses["model"](p, _context(batch, keys, False))
    )(params)
    x0 = to_unit(batch["image"])
    noise = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(split_keys(keys, 4)[3])
    expected = jnp.mean((noise - x0 if kind == "velocity" else x0) ** 2, (1, 2, 3))
    assert extra == {} and per_example.shape == (4,)
    np.testing.assert_allclose(per_example, expected, rtol=1e-5)
    if kind == "velocity":
        np.testing.assert_allclose(metrics["velocity_mse"], expected, rtol=1e-5)


def test_it_learns_its_captions():
    family, params = _trained()
    drawn = _sample(family, params, _keys(8, 3), _batch(8)["text"], steps=10)
    assert drawn.dtype == jnp.uint8 and drawn.shape == (8, 8, 8, 3)
    assert np.abs(drawn.mean((1, 2)) - COLOURS[np.arange(8) % 2]).max() < 40


def test_a_picture_does_not_depend_on_its_batch():
    family, params = _trained()
    text = _batch(4)["text"]
    together = np.asarray(_sample(family, params, _keys(), text), int)
    alone = _sample(family, params, _keys()[2:3], jax.tree.map(lambda a: a[2:3], text))
    assert np.abs(alone[0] - together[2]).max() <= 1


def test_guidance_of_one_needs_no_null_caption():
    """With a scale of 1, or an interval that is never reached, the null text has no influence."""
    family, params = _trained()
    text = _batch(4)["text"]
    plain = _sample(family, params, _keys(), text, guidance=1.0)
    np.testing.assert_array_equal(
        _sample(family, params, _keys(), text, guidance=9.0, interval_low=2.0), plain
    )
    assert (np.asarray(_sample(family, params, _keys(), text, guidance=9.0)) != plain).any()


def test_another_loss_builds_on_the_denoiser():
    """Differentiate the network along its trajectory, given a second time (arXiv 2505.13447)."""
    denoiser, batch = diffusion.make_denoiser(_config(), vector=16), _batch()
    params = jax.jit(denoiser.init)(jax.random.key(0), batch)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    # A fresh network predicts zero: make it another one.
    leaves = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    params, x0 = jax.tree.unflatten(tree, leaves), denoiser.latents.encode({}, batch["image"])
    noise = jax.random.normal(jax.random.key(2), x0.shape)
    t = denoiser.draw_times(_keys())
    r, c = 0.5 * t, denoiser.schedule(t[:, None, None, None])
    x_t, velocity = c.alpha * x0 + c.sigma * noise, noise - x0

    @jax.jit
    def along(params, step):
        """Return the output at `step` of time away, and its derivative by the time."""
        condition = denoiser.encode_text(params, FROZEN, batch["text"]["transformer"])

        def predict(x, t, r):
            told = condition._replace(vector=sine_time(t - r, 16))
            return denoiser.predict(params, x, t, told)

        tangents = (velocity, jnp.ones_like(t), jnp.zeros_like(r))
        return jax.jvp(predict, (x_t + step * velocity, t + step, r), tangents)

    (_, slope), after, before = (along(params, step)[:2] for step in (0.0, 2e-5, -2e-5))
    difference = (after[0] - before[0]) / 4e-5
    assert float(jnp.abs(slope).max()) > 0.1
    np.testing.assert_allclose(slope, difference, rtol=0.05, atol=0.02 * np.abs(slope).max())
    gradient = jax.grad(lambda p: jnp.square(along(p, 0.0)[0]).mean())(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    assert float(jnp.abs(gradient["net"]["vector"]["kernel"]).max()) > 0


def test_offset_noise_moves_whole_channels():
    """Means over N pixels have variance 1/N + offset^2; what is left over is the same noise."""
    keys, shape = _keys(400), (4, 4, 3)
    plain, moved = (np.asarray(diffusion.training_noise(keys, shape, x)) for x in (0.0, 0.5))
    for noise, variance in ((plain, 1 / 16), (moved, 1 / 16 + 0.25)):
        found = noise.mean(axis=(1, 2)).var()
        np.testing.assert_allclose(found, variance, rtol=0.15)
    offset = moved - plain
    np.testing.assert_allclose(offset, np.broadcast_to(offset[:, :1, :1], offset.shape), atol=1e-6)
    assert abs(np.corrcoef(offset[:, 0, 0].T)[0, 1]) < 0.15, "each channel has its own"


def test_bad_fields():
    with pytest.raises(ValueError, match=r"diffusion.scedule is unknown: diffusion has schedule"):
        diffusion.make(_config(diffusion={"scedule": "cosine"}))
    with pytest.raises(ValueError, match=r"no parameterization 'epsilon'"):
        diffusion.make(_config(diffusion={"parameterization": "epsilon"}))
    with pytest.raises(ValueError, match=r"'resnet' in models: there are dit, latent_mlp, unet"):
        diffusion.make(_config(model={"network": "resnet"}))


@pytest.mark.parametrize("arg", ["unet", "unet_smoke"])
def test_the_u_net_takes_the_transformers_place(arg, tiny_batch):
    config = configs.load(f"{ROOT}/configs/shapes_diffusion.py:{arg}")
    family = load_family(config)
    batch, frozen = tiny_batch(config, 4)

    params, extra = jax.eval_shape(family.init, jax.random.key(0), batch)
    if arg == "unet_smoke":
        params, extra = jax.jit(family.init)(jax.random.key(0), batch)

    def loss(params):
        ctx = Context(extra, frozen, None, 0, batch, jax.random.split(jax.random.key(1), 4))
        return family.losses["model"](params, ctx)[0]

    assert jax.eval_shape(loss, params).shape == (4,)
    if arg == "unet_smoke":
        assert np.isfinite(jax.jit(loss)(params)).all()
