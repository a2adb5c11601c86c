"""Changes of gradients: clipping to a norm, and noise of a given deviation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.training import gradients


def test_noise_has_its_standard_deviation():
    tree = {"a": jnp.zeros((200, 200)), "b": jnp.ones(10_000)}
    noisy = gradients.add_noise(0.3)(tree, jax.random.key(0))
    for name, mean in (("a", 0.0), ("b", 1.0)):
        np.testing.assert_allclose(noisy[name].mean(), mean, atol=0.015)
        np.testing.assert_allclose(noisy[name].std(), 0.3, rtol=0.03)


def test_gradient_settings():
    config = ConfigDict({"clip_examples": 0.0, "gradient_noise": 0.0})
    assert gradients.make_gradient_transforms(config) == {"per_example": None, "after_mean": None}
    config.update({"clip_examples": 2.0, "gradient_noise": 0.1})
    made = gradients.make_gradient_transforms(config)
    np.testing.assert_allclose(made["per_example"]({"w": jnp.array([3.0, 4.0])})["w"], [1.2, 1.6])
    config.clip_examples = -1.0
    with pytest.raises(ValueError, match=r"optim\.clip_examples is -1\.0"):
        gradients.make_gradient_transforms(config)
