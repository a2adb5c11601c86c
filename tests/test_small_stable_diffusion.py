"""The parts of a small Stable Diffusion that is to be trained (scripts/)."""

import jax
import numpy as np

from scripts.small_stable_diffusion import standardised
from t2i_jax.models.autoencoder_kl import AutoencoderKL, param_shapes
from tests.tiny_stable_diffusion import random_params


def test_an_autoencoder_is_standardised():
    """Its latents are those minus the mean, over the deviation; pictures stay as they are."""
    net = AutoencoderKL(latent=3, width=32, multipliers=(1, 1), blocks=1, project=True)
    before = random_params(param_shapes(net), 0)
    mean, deviation = np.float32([0.5, -1.0, 3.0]), np.float32([0.1, 1.0, 4.0])
    after = standardised({"params": before, "mean": mean, "deviation": deviation})
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)

    @jax.jit
    def run(params):
        z, logvar = net.apply({"params": params}, pictures, method=net.encode)
        return z, logvar, net.apply({"params": params}, z, method=net.decode)

    (z, logvar, drawn), (new_z, new_logvar, again) = run(before), run(after)
    np.testing.assert_allclose(new_z, (z - mean) / deviation, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(new_logvar, logvar - 2 * np.log(deviation), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(again, drawn, rtol=1e-3, atol=1e-3)
