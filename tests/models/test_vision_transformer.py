"""The vision transformer pools patches, each with its place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.layers import sine_positions_2d
from t2i_jax.models.shared_space import SharedSpace, unit_length
from t2i_jax.models.vision_transformer import VisionTransformer

PICTURES = np.random.default_rng(0).uniform(-1, 1, (2, 4, 6, 3)).astype(np.float32)


def test_without_blocks_it_is_the_mean_of_normalised_patches():
    net = VisionTransformer(patch=2, width=8, depth=0, heads=2)
    pooled, variables = jax.jit(net.init_with_output)(jax.random.key(0), PICTURES)
    layer = jax.tree.map(np.asarray, variables["params"]["patch_in"])
    patches = PICTURES.reshape(2, 2, 2, 3, 2, 3).swapaxes(2, 3).reshape(2, 6, 12)
    x = patches @ layer["kernel"] + layer["bias"] + sine_positions_2d(2, 3, 8)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(pooled, x.mean(1), rtol=1e-5, atol=1e-6)


def test_a_patch_that_does_not_divide():
    net = VisionTransformer(patch=4, width=8, depth=0, heads=2)
    with pytest.raises(ValueError, match=r"model\.patch is 4: it must divide .* 4 x 6"):
        net.init(jax.random.key(0), PICTURES)


def test_the_shared_space_in_closed_form():
    """Unit vectors, and the exponential of a learned number times their products, plus a bias."""
    a, b = np.array([[3.0, 4.0]], np.float32), np.array([[1.0, 0.0], [0.0, -2.0]], np.float32)
    eye, log_scale = {"kernel": jnp.eye(2)}, jnp.log(5.0)
    params = {"image": eye, "text": eye, "log_scale": log_scale, "offset": jnp.float32(-1.0)}
    logits = SharedSpace(2, 10.0, -10.0).apply({"params": params}, a, b)
    np.testing.assert_allclose(logits, [[5 * 0.6 - 1, -5 * 0.8 - 1]], rtol=1e-6)
    begun = jax.jit(SharedSpace(2, 10.0, -10.0).init)(jax.random.key(0), a, b)["params"]
    np.testing.assert_allclose(np.exp(begun["log_scale"]), 10.0, rtol=1e-6)
    assert begun["offset"] == -10.0
    shapes = jax.eval_shape(SharedSpace(2, 10.0).init, jax.random.key(0), a, b)
    assert "offset" not in shapes["params"]


def test_a_vector_of_zeros_has_a_finite_gradient():
    assert np.isfinite(jax.grad(lambda x: unit_length(x).sum())(jnp.zeros(3))).all()
