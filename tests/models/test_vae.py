"""The networks of a VAE: shapes, what has an influence, and possible sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models import likelihoods, vae
from t2i_jax.models.vae import Decoder, Encoder

SIZES = dict(width=8, multipliers=(1, 2), hidden=16)


def _text(batch=2, width=5, seed=0):
    pooled = jnp.asarray(np.random.default_rng(seed).normal(size=(batch, width)), jnp.float32)
    return TextCondition(pooled[:, None], pooled, jnp.ones((batch, 1), bool))


def _count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("net", vae.NETS)
@pytest.mark.parametrize(
    ("likelihood", "scale", "outputs", "extra"),
    [
        ("bernoulli", "each", 1, 0),  # it has no scale
        ("gaussian", "fixed", 1, 0),
        ("gaussian", "one", 1, 1),
        ("gaussian", "each", 2, 0),
        ("logistic", "each", 2, 0),
    ],
)
def test_the_decoder_returns_the_parameters_of_its_likelihood(
    net, likelihood, scale, outputs, extra
):
    decoder = Decoder(8, 3, likelihood, scale, -1.0, net, **SIZES)
    (location, log_scale), variables = jax.eval_shape(
        decoder.init_with_output, jax.random.key(0), jnp.zeros((2, 4)), _text()
    )
    assert location.shape == (2, 8, 8, 3) and location.dtype == jnp.float32
    assert log_scale.shape == (location.shape if outputs == 2 else ())
    c = 3 * outputs
    if net == "conv":  # from 2 x 2 cells of 16 channels over 4 x 4 of 8
        own = (
            64 * (16 + 1)
            + 16 * (9 * 16 + 1)
            + 32 * (16 + 1)
            + 8 * (9 * 8 + 1)
            + 4 * c * (9 * 8 + 1)
        )
    else:
        own = 16 * (16 + 1) + 8 * (16 + 1) + 64 * c * (8 + 1)
    assert _count(variables["params"]) == 16 * (4 + 5 + 1) + own + extra


@pytest.mark.parametrize("net", vae.NETS)
def test_shapes_and_parameter_count_of_the_encoder(net):
    encoder = Encoder(4, net, **SIZES)
    (mean, log_var), variables = jax.eval_shape(
        encoder.init_with_output, jax.random.key(0), jnp.zeros((2, 8, 8, 3)), _text()
    )
    assert mean.shape == log_var.shape == (2, 4) and mean.dtype == log_var.dtype == jnp.float32
    if net == "conv":
        own, flat = 8 * (9 * 12 + 1) + 16 * (4 * 8 + 1) + 16 * (9 * 16 + 1), 4 * 16
    else:
        own, flat = 8 * (192 + 1) + 16 * (8 + 1), 16
    assert _count(variables["params"]) == own + 16 * (flat + 5 + 1) + 8 * (16 + 1)


@pytest.mark.parametrize("net", vae.NETS)
def test_what_has_an_influence(net):
    """Pixels, latent numbers and the text have an influence: on their own example alone."""
    encoder, decoder, text = Encoder(4, net, **SIZES), Decoder(8, 1, net=net, **SIZES), _text()
    r = np.random.default_rng(0)
    x, z = (jnp.asarray(r.normal(size=shape), jnp.float32) for shape in ((2, 8, 8, 1), (2, 4)))
    other = text._replace(pooled=text.pooled.at[0].add(1.0))
    for network, read, moved in ((encoder, x, (0, 3, 5, 0)), (decoder, z, (0, 2))):
        shapes = jax.eval_shape(network.init, jax.random.key(0), read, text)
        params = jax.tree.map(
            lambda a: jnp.asarray(r.normal(size=a.shape) * 0.3, jnp.float32), shapes
        )
        apply = jax.jit(network.apply)
        before = apply(params, read, text)[0]
        changed = apply(params, read.at[moved].add(1.0), text)[0], apply(params, read, other)[0]
        for after in changed:
            assert np.abs(after[0] - before[0]).max() > 1e-4
            np.testing.assert_allclose(after[1], before[1], atol=1e-6)


def test_log_variance_is_bounded():
    """An extreme picture must not make the KL divergence infinite."""
    encoder, x = Encoder(4, "dense", **SIZES), jnp.full((1, 8, 8, 1), 1e6)
    log_var = np.asarray(jax.jit(encoder.init_with_output)(jax.random.key(0), x, _text(1))[0][1])
    assert np.abs(log_var).max() == vae.MAX_ABS_LOG_VARIANCE


def test_a_learned_scale_starts_at_log_scale_and_is_bounded():
    decoder = Decoder(8, 1, "gaussian", "one", -2.0, "dense", **SIZES)
    params = jax.jit(decoder.init)(jax.random.key(0), jnp.zeros((1, 4)), _text(1))
    apply = jax.jit(lambda params: decoder.apply(params, jnp.zeros((1, 4)), _text(1)).log_scale)
    assert params["params"]["log_scale"] == apply(params) == -2.0
    params["params"]["log_scale"] = jnp.float32(-20.0)
    assert apply(params) == likelihoods.MIN_LOG_SCALE


def test_invalid_sizes_and_fields_raise_errors():
    def init(resolution, **fields):
        jax.eval_shape(
            Decoder(resolution, **{**SIZES, **fields}).init,
            jax.random.key(0),
            jnp.zeros((1, 4)),
            _text(1),
        )

    init(28)
    init(30, net="dense")
    with pytest.raises(
        ValueError,
        match=r"30 px cannot be halved 2 times.* multiple of 4, such as 32; or net can be dense",
    ):
        init(30)
    with pytest.raises(ValueError, match=r"6 px cannot be halved 2 times"):
        jax.eval_shape(
            Encoder(4, **SIZES).init, jax.random.key(0), jnp.zeros((1, 6, 6, 3)), _text(1)
        )
    with pytest.raises(ValueError, match=r"net is 'unet'; it can be conv, dense"):
        init(8, net="unet")
    with pytest.raises(ValueError, match=r"scale is 'two'; it can be fixed, one, each"):
        init(8, scale="two")
    with pytest.raises(ValueError, match=r"no likelihood 'poisson'"):
        init(8, likelihood="poisson")
