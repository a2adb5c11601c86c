"""AutoencoderKL: published sizes, scales, and what is refused. Agreement is tested in parity/."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.autoencoder_kl import MAX_LOGVAR, VARIANTS, AutoencoderKL, param_shapes

TINY = dict(latent=3, width=8, multipliers=(1, 2), blocks=1, project=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_count(variant):
    net = AutoencoderKL(**VARIANTS[variant])
    count = sum(a.size for a in jax.tree.leaves(param_shapes(net)))
    assert count == {4: 83_653_863, 16: 83_819_683}[net.latent]


def random_params(net):
    r = np.random.default_rng(0)
    return jax.tree.map(
        lambda a: (0.2 * r.normal(size=a.shape)).astype(np.float32), param_shapes(net)
    )


def test_moments_and_pictures():
    net, x = AutoencoderKL(**TINY), np.random.default_rng(1).uniform(-1, 1, (2, 8, 12, 3))
    params, x = random_params(net), x.astype(np.float32)

    @jax.jit
    def run(params, x):
        mean, logvar = net.apply({"params": params}, x, method=AutoencoderKL.encode)
        return mean, logvar, net.apply({"params": params}, x)

    mean, logvar, decoded = run(params, x)
    assert mean.shape == logvar.shape == (2, 4, 6, 3) and decoded.shape == x.shape
    assert mean.dtype == logvar.dtype == decoded.dtype == jnp.float32
    assert np.abs(mean - logvar).max() > 0.1
    params["encoder"]["project"]["bias"] = np.array([100.0] * 6, np.float32)
    higher_mean, higher_logvar, _ = run(params, x)
    assert higher_mean.max() > 50 and (higher_logvar == MAX_LOGVAR).all()


def test_scaled_latents_are_shifted_first():
    net = AutoencoderKL(**TINY, scaling=0.5, shift=3.0)
    z = np.array([3.0, 5.0, -1.0], np.float32)
    np.testing.assert_allclose(net.scale(z), [0.0, 1.0, -2.0])
    np.testing.assert_allclose(net.unscale(net.scale(z)), z)


def test_pictures_of_a_wrong_size():
    net = AutoencoderKL(**TINY)
    pictures = jax.ShapeDtypeStruct((1, 8, 9, 3), jnp.float32)
    with pytest.raises(ValueError, match=r"8 x 9 do not divide .* must be multiples of 2"):
        jax.eval_shape(net.init, jax.random.key(0), pictures)
