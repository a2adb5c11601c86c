"""What can be asked of Stable Diffusion 3 and FLUX.1. Pictures: parity/test_flow_pipelines.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax import config as configs
from t2i_jax.core.denoiser import Denoiser
from t2i_jax.core.text import TextCondition
from t2i_jax.diffusion.schedules import rectified
from t2i_jax.families.denoising import plain_predict
from t2i_jax.families.flow_transformer import make_denoiser
from t2i_jax.families.load import load_family
from tests.conftest import ROOT

FILE = f"{ROOT}/configs/stable_diffusion_3.py"


def test_settings_of_guidance_are_those_of_the_network():
    def settings(*overrides, variant="flux"):
        return load_family(configs.load(f"{FILE}:{variant}", overrides)).settings["sample"]

    sd3, dev = settings(variant="sd35"), settings()
    assert sd3["guidance"] == 7.0 and "negative_prompt" in sd3 and sd3["steps"] == 28
    assert dev["guidance"] == 3.5 and "negative_prompt" not in dev and "rescale" not in dev
    schnell = settings("model.variant=FLUX.1-schnell")
    assert "guidance" not in schnell and schnell["steps"] == 4


@pytest.mark.parametrize("variant", ["sd35", "flux"])
def test_sides_are_made_of_whole_patches(variant):
    config = configs.load(f"{FILE}:{variant}")
    assert make_denoiser(config, 1024, 768).latents.shape == (128, 96, 16)
    with pytest.raises(ValueError, match="width is 1000: it must be a multiple of 16, such as 992"):
        make_denoiser(config, 1024, 1000)
    sized = configs.load(f"{FILE}:{variant}", ["data.sizes=('1024x512','512x1000')"])
    with pytest.raises(ValueError, match="height is 1000"):
        make_denoiser(sized, 1024, 1024)


def test_without_guidance_the_network_is_called_once_with_the_captions():
    calls = []

    def velocity(params, x, t, condition):
        calls.append(x.shape)
        return params * x + condition.pooled[:, :1] * t[:, None]

    denoiser = Denoiser(None, None, velocity, rectified, "velocity", None, None)
    condition = TextCondition(jnp.zeros((2, 1, 1)), jnp.array([[1.0], [3.0]]), None)
    x = jax.random.normal(jax.random.key(0), (2, 5))
    x0, noise = plain_predict(denoiser, 0.5, condition)(x, jnp.float32(0.25))
    v = 0.5 * x + jnp.array([[0.25], [0.75]])
    assert calls == [(2, 5)]
    np.testing.assert_allclose(x0, x - 0.25 * v, rtol=1e-5)  # x = x0 + t (noise - x0)
    np.testing.assert_allclose(noise, x + 0.75 * v, rtol=1e-5)
