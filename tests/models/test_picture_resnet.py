"""CLIP's ResNet in small: its size, its pooling in closed form, and what may not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.layers import sine_positions_2d
from t2i_jax.models.picture_resnet import PictureResNet

TINY = PictureResNet(patch=2, width=4, multipliers=(1, 2), heads=2)
PICTURES = np.random.default_rng(0).uniform(-1, 1, (3, 8, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    return jax.jit(TINY.init)(jax.random.key(0), PICTURES)["params"]


def test_parameter_count(params):
    def block(a, c):
        convolutions = a * c + 9 * c * c + c * 4 * c
        skip = a * 4 * c + 2 * 4 * c if a != 4 * c else 0
        return convolutions + 2 * (c + c + 4 * c) + skip

    stem, pooling = 9 * 12 * 16 + 2 * 16, 4 * (32 * 32 + 32)
    assert sum(x.size for x in jax.tree.leaves(params)) == (
        stem + block(16, 4) + block(16, 8) + pooling
    )


def test_a_picture_depends_on_itself_alone(params):
    """There is no BatchNorm: neither its order in the batch nor the other pictures matter."""
    apply = jax.jit(TINY.apply)
    found = apply({"params": params}, PICTURES)
    assert found.shape == (3, 32) and found.dtype == jnp.float32
    turned = apply({"params": params}, PICTURES[::-1].copy())
    np.testing.assert_allclose(turned[::-1], found, rtol=1e-5, atol=1e-6)
    alone = apply({"params": params}, PICTURES[:1])
    np.testing.assert_allclose(alone[0], found[0], rtol=1e-5, atol=1e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_pooling_without_a_choice_is_the_mean(params):
    """With keys of 0, the pooled vector is linear in the mean over the cells."""
    pooling = {**params["pooling"], "key": jax.tree.map(jnp.zeros_like, params["pooling"]["key"])}
    quiet = jax.tree.map(jnp.zeros_like, params)  # its blocks give nothing: places are left
    net = {"params": {**quiet, "pooling": pooling}}
    weights = jax.tree.map(np.asarray, pooling)
    mean = sine_positions_2d(2, 3, 32).mean(0)
    value = mean @ weights["value"]["kernel"] + weights["value"]["bias"]
    expected = value @ weights["out"]["kernel"] + weights["out"]["bias"]
    found = TINY.apply(net, PICTURES)
    np.testing.assert_allclose(found, np.tile(expected, (3, 1)), rtol=1e-4, atol=1e-5)


def test_sides_that_cannot_be_halved():
    with pytest.raises(ValueError, match=r"6 x 8 cannot be halved: .* multiples of 4"):
        jax.eval_shape(TINY.init, jax.random.key(0), np.zeros((1, 6, 8, 3), np.float32))
