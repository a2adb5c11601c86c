"""Diffusion with the probabilities of codes: closed forms, guidance, and a model that learns."""

import functools
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax import config as configs
from t2i_jax.core.family import Context, Variables
from t2i_jax.core.pictures import to_unit
from t2i_jax.families import code_diffusion
from t2i_jax.families.conditioning import make_conditioning
from t2i_jax.families.denoising import guided_predict
from t2i_jax.families.first_stage import load_codes
from tests.conftest import ROOT

NULL = {"transformer": {"tokens": np.array([1, 0, 0]), "mask": np.array([True, False, False])}}
# Two pairs (dark twice; dark and red) of three masks (nothing, all, the left half of 4 x 4 pixels).
DARK, RED = [-0.8, -0.8, -0.8], [0.9, -0.7, -0.7]
HALF = np.tile([1.0, 1.0, 0.0, 0.0], 4)
STAGE = {
    "pairs": np.array([[DARK, DARK], [DARK, RED]], np.float32),
    "masks": np.stack([np.zeros(16), np.ones(16), HALF]).astype(np.float32),
}
FROZEN = {"null_text": NULL, "first_stage": STAGE}


def make_config(network="dit", **model):
    config = configs.copy(configs.load(f"{ROOT}/configs/shapes_code_diffusion.py:smoke"))
    config.data.resolution = 8
    config.image_tokenizer.update(patch=4, codes=6, pairs=2)
    config.text.update(length=3, vocab_size=8, width=16, window=1)
    config.model = {"network": network, "width": 32, "heads": 2, **model}
    if network == "dit":
        config.model.update(patch=4, depth=1, gate_init=0.5, local=True)
    return config.lock()


def make_batch(size=4):
    """The caption 2 is a red patch on the left, 3 one on the right; the lower half is dark."""
    word = np.arange(size) % 2
    tokens = np.stack([word + 2, np.ones_like(word), np.zeros_like(word)], 1)
    codes = np.zeros((size, 4), np.int32)
    codes[np.arange(size), word] = 4
    image = load_codes(make_config()).decode(STAGE, codes)
    text = {"tokens": jnp.asarray(tokens, jnp.int32), "mask": jnp.asarray(tokens > 0)}
    return {"image": image, "text": {"transformer": text}}, codes


def context(batch, keys, train=True):
    return Context({}, FROZEN, None, jnp.array(0), batch, keys, train)


@functools.cache
def trained():
    family, (batch, _) = code_diffusion.make(make_config()), make_batch(16)
    params, _ = jax.jit(family.init)(jax.random.key(0), batch)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def train(params, state):
        def step(carry, i):
            params, state = carry
            keys = jax.random.split(jax.random.fold_in(jax.random.key(1), i), 16)
            gradients = jax.grad(
                lambda p: family.losses["model"](p, context(batch, keys))[0].mean()
            )(params)
            updates, state = optimizer.update(gradients, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), jnp.arange(400))[0][0]

    return family, train(params, optimizer.init(params))


def draw(family, params, text, seed=0, **settings):
    settings = {**family.settings["sample"], "steps": 8, **settings}
    static = {name: settings.pop(name) for name in family.static if name in settings}
    settings.pop("negative_prompt")
    function = jax.jit(functools.partial(family.abilities["sample"], **static))
    keys = jax.random.split(jax.random.key(seed), len(text["transformer"]["tokens"]))
    return function(Variables(params, {}, FROZEN), {"text": text}, keys, **settings)


@pytest.mark.parametrize("network", ["dit", "unet"])
def test_the_first_loss_is_that_of_ignorance(network):
    """A fresh network gives zeros: every code has the same probability, log 2 + log 3 nats."""
    more = {"multipliers": (1,), "attention": (0,)} if network == "unet" else {}
    family, (batch, _) = code_diffusion.make(make_config(network, **more)), make_batch()
    params, extra = jax.jit(family.init)(jax.random.key(0), batch)
    # Zeros come out of the body; the second part reads the first one besides.
    head = params["model"]["net"]["head"]
    head["code_parts"]["out"] = jax.tree.map(jnp.zeros_like, head["code_parts"]["out"])
    head["code_parts"]["given"] = jnp.zeros_like(head["code_parts"]["given"])
    keys = jax.random.split(jax.random.key(0), 4)
    nats, (_, metrics) = jax.jit(lambda p: family.losses["model"](p, context(batch, keys, False)))(
        params
    )
    assert extra == {} and 0.0 <= float(metrics["code_accuracy"].min()) <= 1.0
    np.testing.assert_allclose(nats, np.log(2) + np.log(3), rtol=1e-5)


def test_the_mean_is_that_of_the_codebook_under_the_probabilities():
    config, rng = make_config(), np.random.default_rng(0)
    stage, conditioning = load_codes(config), make_conditioning(config)
    network = code_diffusion.make_network(config, stage)
    denoiser = code_diffusion.make_denoiser(config, stage, conditioning, network)
    with pytest.raises(TypeError, match="bind"):
        denoiser.predict({}, None, None, None)
    first, second = rng.normal(size=(1, 4, 2)), rng.normal(size=(1, 4, 2, 3))
    mean = denoiser.bind(STAGE).mean((jnp.asarray(first), jnp.asarray(second)))
    p = np.exp(first) / np.exp(first).sum(-1, keepdims=True)
    q = np.exp(second) / np.exp(second).sum(-1, keepdims=True)
    patches = np.asarray(stage.vectors(STAGE)).reshape(2, 3, 48)
    expected = np.einsum("bnp,bnpm,pmd->bnd", p, q, patches)
    for i, (row, column) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        found = mean[0, row : row + 4, column : column + 4]
        np.testing.assert_allclose(found, expected[0, i].reshape(4, 4, 3), rtol=1e-4, atol=1e-5)


def test_it_learns_its_captions():
    family, params = trained()
    batch, _ = make_batch(8)
    drawn = np.asarray(draw(family, params, batch["text"]), int)
    assert np.abs(drawn - np.asarray(batch["image"], int)).max() <= 2


def test_guidance_is_of_logits():
    """The mean of guided logits stays among the patches, however strong guidance is."""
    family, params = trained()
    del family
    config = make_config()
    stage, conditioning = load_codes(config), make_conditioning(config)
    network = code_diffusion.make_network(config, stage)
    denoiser = code_diffusion.make_denoiser(config, stage, conditioning, network).bind(STAGE)
    batch, _ = make_batch(2)
    both = conditioning.with_null(batch["text"]["transformer"], FROZEN)
    condition = denoiser.encode_text(params["model"], FROZEN, both)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    for scale in (1.0, 3.0, 30.0):
        predict = guided_predict(denoiser, params["model"], condition, guidance=scale)
        x0, noise = predict(x, jnp.float32(0.8))
        assert x0.min() >= -0.8 - 1e-5 and x0.max() <= 0.9 + 1e-5
        np.testing.assert_allclose(0.2 * x0 + 0.8 * noise, x, atol=1e-5)


def test_inpainting_keeps_the_other_pixels():
    family, params = trained()
    batch, _ = make_batch(2)
    image, mask = np.asarray(batch["image"])[::-1], np.zeros((2, 8, 8), bool)
    mask[:, :4] = True
    settings = {**family.settings["inpaint"], "steps": 8}
    static = {name: settings.pop(name) for name in family.static if name in settings}
    settings.pop("negative_prompt")
    keys = jax.random.split(jax.random.key(0), 2)
    inputs = {"text": batch["text"], "image": image, "mask": mask}
    variables = Variables(params, {}, FROZEN)
    drawn = np.asarray(
        family.abilities["inpaint"](variables, inputs, keys, **settings, **static), int
    )
    np.testing.assert_array_equal(drawn[:, 4:], image[:, 4:])
    assert np.abs(drawn - np.asarray(batch["image"], int)).max() <= 2, "the caption decides"


def test_codes_are_those_of_the_codebook():
    stage, (batch, codes) = load_codes(make_config()), make_batch()
    np.testing.assert_array_equal(stage.encode(STAGE, batch["image"]), codes)
    patches = np.asarray(stage.vectors(STAGE))[codes].reshape(4, 2, 2, 4, 4, 3)
    whole = patches.transpose(0, 1, 3, 2, 4, 5).reshape(4, 8, 8, 3)
    np.testing.assert_allclose(to_unit(batch["image"]), whole, atol=1 / 127)


def test_what_it_cannot_be_trained_on_is_refused(monkeypatch):
    config = configs.copy(make_config())
    config.first_stage.run = "runs/stage"
    with pytest.raises(ValueError, match=r"leave out config\.first_stage\.run"):
        code_diffusion.make(config)
    config = configs.copy(make_config())
    config.model = {"network": "my_package.network"}
    other = SimpleNamespace(make=lambda config: SimpleNamespace())
    monkeypatch.setitem(sys.modules, "my_package.network", other)
    with pytest.raises(ValueError, match=r"cannot tell codes: set model\.network to unet or dit"):
        code_diffusion.make(config)
