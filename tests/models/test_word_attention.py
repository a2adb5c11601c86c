"""Which cells belong to a word: hand-made attention, and sums that hold for random networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models.attention import INTERMEDIATES, WEIGHTS
from t2i_jax.models.dit import DiT
from t2i_jax.models.unet import UNet
from t2i_jax.models.word_attention import token_maps

RNG = np.random.default_rng(0)
MASK = np.arange(5) < np.array([3, 5])[:, None]
TEXT = TextCondition(
    jnp.asarray(RNG.normal(size=(2, 5, 6)), jnp.float32),
    jnp.asarray(RNG.normal(size=(2, 6)), jnp.float32),
    jnp.asarray(MASK),
)
IMAGE = jnp.asarray(RNG.normal(size=(2, 8, 8, 3)), jnp.float32)
TIMES = jnp.array([0.2, 0.8])


def maps_of_random(network):
    @jax.jit
    def compute(key):
        params = network.init(key, IMAGE, TIMES, TEXT)["params"]
        return token_maps(network, params, IMAGE, TIMES, TEXT)

    return np.asarray(compute(jax.random.key(0)))


class Shows(nn.Module):
    """Shows the weights that it is given."""

    @nn.compact
    def __call__(self, weights):
        self.sow(INTERMEDIATES, WEIGHTS, weights)


class HandMade(nn.Module):
    """A network whose layers have these weights, all under one name."""

    text_attention: str
    layers: tuple

    @nn.compact
    def __call__(self, x, t, text):
        name = {"joint": "attention", "cross": "cross_attention"}[self.text_attention]
        for i, weights in enumerate(self.layers):
            Layer(name, name=f"layer_{i}")(weights)


class Layer(nn.Module):
    module: str

    @nn.compact
    def __call__(self, weights):
        Shows(name=self.module)(weights)


def test_tokens_that_share_the_attention_of_the_cells():
    """16 cells and then 5 tokens: a token's row, times the square of its share of each cell."""
    layers = tuple(jnp.asarray(RNG.random((2, 21, 21)), jnp.float32) for _ in range(2))
    found = token_maps(HandMade("joint", layers), {}, IMAGE, TIMES, TEXT)
    assert found.shape == (2, 5, 4, 4)
    shares = [x[:, :16, 16:] / x[:, :16, 16:].sum(2, keepdims=True) for x in layers]
    for token in range(5):
        rows = (layers[0][:, 16 + token, :16] + layers[1][:, 16 + token, :16]) / 2
        share = (shares[0][:, :, token] + shares[1][:, :, token]) / 2
        np.testing.assert_allclose(found[:, token].reshape(2, 16), rows * share**2, rtol=1e-5)


def test_coarse_cells_that_attend_to_tokens_are_enlarged():
    """A token that has 0.5 of every cell of a coarse layer adds 0.5 to each cell of the finest."""
    fine = jnp.asarray(RNG.random((2, 16, 5)), jnp.float32)
    coarse = jnp.full((2, 4, 5), 0.5)
    found = token_maps(HandMade("cross", (fine, coarse)), {}, IMAGE, TIMES, TEXT)
    expected = (fine.swapaxes(1, 2).reshape(2, 5, 4, 4) + 0.5) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("network", "grid"),
    [
        (DiT(patch=2, width=16, depth=1, heads=2, text_mode="cross", gate_init=0.5), 4),
        (DiT(patch=2, width=16, depth=1, heads=2, text_mode="gated", gate_init=0.5), 4),
        (UNet(width=8, multipliers=(1,), attention=(), heads=2), 8),
    ],
    ids=["dit", "gated", "unet"],
)
def test_a_cell_divides_its_attention_among_the_tokens(network, grid):
    found = maps_of_random(network)
    assert found.shape == (2, 5, grid, grid)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-5)
    assert (found[~MASK] == 0).all() and (found[MASK] > 0).all()


def test_padding_has_no_map_where_tokens_and_cells_share_the_attention():
    network = DiT(patch=2, width=16, depth=1, heads=2, gate_init=0.5)
    found = maps_of_random(network)
    total = found.sum((2, 3))
    assert found.shape == (2, 5, 4, 4) and (total < 1).all()
    assert (total[MASK] > 0).all() and (total[~MASK] == 0).all()


def test_networks_say_how_they_attend_to_text():
    assert DiT(text_mode="cross").text_attention == "cross"
    assert DiT().text_attention == "joint" and UNet().text_attention == "cross"
    assert UNet(cross_attention=False).text_attention == ""
    assert DiT(text_mode="resampler").text_attention == DiT(text_mode="film").text_attention == ""
