"""Flow: the loss against its formula, sampling's independence, and that a tiny model learns its captions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from t2i_jax import config as configs
from t2i_jax.families import family as families
from t2i_jax.families import flow
from t2i_jax.families.family import Context, Variables, split_keys
from t2i_jax.models.layers import to_unit
from tests.conftest import ROOT

NULL = {"transformer": {"tokens": np.array([1, 0, 0]), "mask": np.array([True, False, False])}}
FROZEN = {"null_text": NULL}
COLOURS = np.array([[230, 30, 30], [30, 30, 230]], np.uint8)


def _config(**over):
    config = ConfigDict(
        {
            "data": {"resolution": 8},
            "first_stage": {"run": ""},
            "text": {"encoder": "transformer", "length": 3, "vocab_size": 8, "width": 16, "depth": 0},
            "model": {"network": "dit", "patch": 4, "width": 32, "depth": 1, "heads": 2, "gate_init": 0.5},
            "caption_dropout": 0.1,
        }
    )
    for path, value in over.items():
        config[path] = value
    return config


def _batch(size=4):
    word = np.arange(size) % 2
    tokens = np.stack([word + 2, np.ones_like(word), np.zeros_like(word)], 1)
    image = np.broadcast_to(COLOURS[word][:, None, None], (size, 8, 8, 3))
    text = {"transformer": {"tokens": jnp.asarray(tokens, jnp.int32), "mask": jnp.asarray(tokens > 0)}}
    return {"image": jnp.asarray(image), "text": text}


def _keys(size=4, seed=0):
    return jax.random.split(jax.random.key(seed), size)


def _context(batch, keys, train=True):
    return Context({}, FROZEN, None, jnp.array(0), batch, keys, train)


@functools.cache
def _trained():
    """A red or a blue picture for the captions 2 and 3, after 200 steps on a batch of 16."""
    family, batch = flow.make(_config()), _batch(16)
    params, _ = jax.jit(family.init)(jax.random.key(0), batch)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def train(params, state):
        def step(carry, i):
            params, state = carry
            keys = jax.random.split(jax.random.fold_in(jax.random.key(1), i), 16)
            gradients = jax.grad(lambda p: family.losses["model"](p, _context(batch, keys))[0].mean())(params)
            updates, state = optimizer.update(gradients, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), jnp.arange(200))[0][0]

    return family, train(params, optimizer.init(params))


def _sample(family, params, keys, text, **settings):
    settings = {**family.settings["sample"], "steps": 4, **settings}
    static = {name: settings.pop(name) for name in family.static}
    function = jax.jit(functools.partial(family.abilities["sample"], **static))
    return function(Variables(params, {}, FROZEN), {"text": text}, keys, **settings)


@pytest.mark.parametrize("kind", ["velocity", "x0"])
def test_loss_of_a_network_that_says_zero(kind):
    """Networks start from zero, so the loss starts as the mean square of the target, x0 or noise - x0."""
    family = flow.make(_config(diffusion={"parameterization": kind, "time": "uniform"}))
    batch, keys = _batch(), _keys()
    params, extra = jax.jit(family.init)(jax.random.key(0), batch)
    per_example, (_, metrics) = jax.jit(lambda p: family.losses["model"](p, _context(batch, keys, False)))(params)
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


def test_a_picture_is_alone():
    family, params = _trained()
    text = _batch(4)["text"]
    together = np.asarray(_sample(family, params, _keys(), text), int)
    alone = _sample(family, params, _keys()[2:3], jax.tree.map(lambda a: a[2:3], text))
    assert np.abs(alone[0] - together[2]).max() <= 1


def test_guidance_of_one_needs_no_null_caption():
    """With a scale of 1, or an interval that is never reached, the unconditional branch has no influence."""
    family, params = _trained()
    text = _batch(4)["text"]
    plain = _sample(family, params, _keys(), text, guidance=1.0)
    np.testing.assert_array_equal(_sample(family, params, _keys(), text, guidance=9.0, interval_low=2.0), plain)
    assert (np.asarray(_sample(family, params, _keys(), text, guidance=9.0)) != plain).any()


def test_bad_fields():
    with pytest.raises(ValueError, match=r"diffusion.scedule is unknown: diffusion has schedule"):
        flow.make(_config(diffusion={"scedule": "cosine"}))
    with pytest.raises(ValueError, match=r"no parameterization 'epsilon'"):
        flow.make(_config(diffusion={"parameterization": "epsilon"}))
    with pytest.raises(ValueError, match=r"'resnet' in models: there are dit, unet"):
        flow.make(_config(model={"network": "resnet"}))


@pytest.mark.parametrize("arg", ["unet", "unet_smoke"])
def test_the_u_net_takes_the_transformers_place(arg, tiny_batch):
    config = configs.load(f"{ROOT}/configs/shapes_flow.py:{arg}")
    family = families.load(config)
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
