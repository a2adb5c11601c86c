"""The ability `explain`: sums, closed forms, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax import config as configs
from t2i_jax.core.denoiser import Denoiser
from t2i_jax.core.family import Variables, get_ability
from t2i_jax.core.first_stage import Latents
from t2i_jax.core.text import TextCondition
from t2i_jax.diffusion.schedules import Coefficients
from t2i_jax.families import autoregressive, diffusion
from t2i_jax.families.conditioning import make_conditioning
from t2i_jax.families.first_stage import load_codes
from t2i_jax.families.load import load_family
from t2i_jax.families.word_maps import TIMES, normalised, word_map_abilities
from tests.conftest import ROOT

RNG = np.random.default_rng(0)


def test_maps_have_a_sum_of_1_and_those_of_padding_are_zero():
    maps = jnp.asarray(RNG.random((2, 3, 4, 4)), jnp.float32).at[0, 1].set(0.0)
    mask = jnp.array([[True, True, False], [True, True, True]])
    found = normalised(maps, mask)
    np.testing.assert_allclose(found.sum((2, 3)), [[1, 0, 0], [1, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(found[1, 2], maps[1, 2] / maps[1, 2].sum(), rtol=1e-6)


def fake_denoiser(attention):
    """A denoiser of pictures of 2 x 2 pixels; x_t is x0 + 10 t, without noise."""

    def encode_text(params, frozen, text, keys=None):
        return TextCondition(text["tokens"][..., None], text["tokens"][:, :1], text["mask"])

    def schedule(t):
        return Coefficients(jnp.ones_like(t), jnp.zeros_like(t), t, t)

    latents = Latents((2, 2, 1), lambda frozen, image: image, lambda frozen, x: x, None)
    return Denoiser(None, encode_text, None, schedule, "x0", None, latents, attention=attention)


def test_maps_are_averaged_over_times():
    """An attention of t^2 times the token to all cells but one, which gets x0 times the token."""

    def attention(params, x_t, t, condition):
        rest = jnp.broadcast_to(t[:, None, None] ** 2, (len(t), 2, 2))
        cells = jnp.where(jnp.arange(4).reshape(2, 2) == 3, x_t[..., 0], rest)
        return condition.sequence[..., 0][:, :, None, None] * cells[:, None]

    conditioning = make_conditioning(configs.load(f"{ROOT}/configs/shapes.py:smoke"))
    explain = word_map_abilities(fake_denoiser(attention), conditioning)["explain"]
    text = {"tokens": jnp.array([[2.0, 5.0], [3.0, 0.0]]), "mask": jnp.array([[1, 1], [1, 0]]) > 0}
    image = jnp.full((2, 2, 2, 1), 0.5)
    inputs = {"image": image, "text": {"transformer": text}}
    keys = jax.random.split(jax.random.key(0), 2)
    found = explain(Variables({"model": {}}, {}, {}), inputs, keys)
    squares = np.mean(np.square(TIMES))
    expected = np.array([[squares, squares], [squares, 0.5]]) / (3 * squares + 0.5)
    np.testing.assert_allclose(found[0], [expected, expected], rtol=1e-5)
    np.testing.assert_allclose(found[1], [expected, np.zeros((2, 2))], rtol=1e-5)


def test_a_network_that_does_not_attend_to_tokens_has_no_maps():
    config = configs.copy(configs.load(f"{ROOT}/configs/shapes_diffusion.py:smoke"))
    config.model = {"network": "unet", "width": 8, "multipliers": (1,), "cross_attention": False}
    with pytest.raises(ValueError, match="this model cannot 'explain'; it can edit"):
        get_ability(diffusion.make(config), "explain")
    config.model.cross_attention = True
    assert callable(get_ability(diffusion.make(config), "explain"))


@functools.cache
def drawer(captioning):
    config = configs.load(
        f"{ROOT}/configs/shapes.py:smoke", [f"captioning={captioning}", "data.resolution=16"]
    )
    return config, load_family(config)


def inputs_of(config, length):
    tokens = RNG.integers(2, 200, (2, length)).astype(np.int32)
    mask = np.arange(length) < np.array([[3], [length]])
    image = RNG.integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    return {"image": image, "text": {"transformer": {"tokens": tokens, "mask": mask}}}


def variables_of(config, family, inputs):
    params, extra = jax.jit(family.init)(jax.random.key(0), inputs)
    stage = load_codes(config)
    arrays = {"codebook": RNG.uniform(-1, 1, (stage.size, stage.channels)).astype(np.float32)}
    return Variables(params, extra, {"first_stage": arrays})


def test_the_map_of_an_autoregressive_model_is_the_geometric_mean_of_both_directions():
    """A model that only draws gives one of them; `Writer.attention` gives the other."""
    config, both = drawer(1.0)
    only_draws = drawer(0.0)[1]
    inputs = inputs_of(config, config.text.length)
    variables = variables_of(config, both, inputs)
    shares = np.asarray(jax.jit(only_draws.abilities["explain"])(variables, inputs, None))
    stage = load_codes(config)
    writer = autoregressive.make_writer(config, stage)
    codes = stage.encode(variables.frozen["first_stage"], inputs["image"])
    text = inputs["text"]["transformer"]
    model, frozen = variables.params["model"], variables.frozen
    written = np.asarray(jax.jit(writer.attention)(model, frozen, codes, text))
    # A word attends to all cells and to the words up to it: the first one to cells and itself.
    total = written.sum(-1)
    assert (total > 0).all() and (total < 1).all()
    expected = np.sqrt(shares * written.reshape(shares.shape))
    expected /= np.maximum(expected.sum((2, 3), keepdims=True), 1e-12)
    found = np.asarray(jax.jit(both.abilities["explain"])(variables, inputs, None))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    mask = text["mask"]
    np.testing.assert_allclose(found.sum((2, 3)), mask, atol=1e-5)
    assert found.shape == (2, config.text.length, *stage.grid)
    assert np.abs(found - shares).max() > 1e-5


def test_a_caption_of_another_length_is_refused():
    config, family = drawer(1.0)
    right = inputs_of(config, config.text.length)
    variables = jax.eval_shape(lambda: variables_of(config, family, right))
    longer = {**right, "text": inputs_of(config, config.text.length + 2)["text"]}
    with pytest.raises(ValueError, match=rf"writes {config.text.length} \(text\.length\)"):
        jax.eval_shape(family.abilities["explain"], variables, longer, None)
