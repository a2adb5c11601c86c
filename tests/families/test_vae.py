"""VAE: the bound against a known evidence, its parts in closed form, and a tiny model."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from scipy import special, stats

from t2i_jax.core import state
from t2i_jax.core.family import Context, Variables
from t2i_jax.core.pictures import to_unit
from t2i_jax.families import latent_abilities, vae
from t2i_jax.models.vae import Pixels
from t2i_jax.training import step

NULL = {"transformer": {"tokens": np.array([1, 0]), "mask": np.array([True, False])}}
FROZEN = {"null_text": NULL}
COLOURS = np.array([[230, 30, 30], [30, 30, 230]], np.uint8)


def _config(**sections):
    config = ConfigDict(
        {
            "data": {"resolution": 8},
            "text": {
                "encoder": "transformer",
                "length": 2,
                "vocab_size": 8,
                "width": 8,
                "depth": 0,
            },
            "model": {"latent": 2, "net": "dense", "width": 32, "multipliers": (1,), "hidden": 16},
            "caption_dropout": 0.1,
        }
    )
    for name, value in sections.items():
        config[name] = value
    return config


def _batch(size=4):
    word = np.arange(size) % 2
    tokens = np.stack([word + 2, np.ones_like(word)], 1).astype(np.int32)
    image = np.broadcast_to(COLOURS[word][:, None, None], (size, 8, 8, 3))
    return {
        "image": jnp.asarray(image),
        "text": {"transformer": {"tokens": tokens, "mask": tokens > 0}},
    }


def _keys(size=4, seed=0):
    return jax.random.split(jax.random.key(seed), size)


def _params(family, batch):
    """Random parameters, without compiling what draws them."""
    shapes, _ = jax.eval_shape(family.init, jax.random.key(0), batch)
    r = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(r.normal(size=x.shape) * 0.1, jnp.float32), shapes)


def _loss_of(family, train=False):
    """(params, batch, keys, step) -> (per_example [B], metrics), compiled."""

    @jax.jit
    def loss(params, batch, keys, at=0):
        per_example, (_, metrics) = family.losses["model"](
            params, Context({}, FROZEN, None, at, batch, keys, train)
        )
        return per_example, metrics

    return loss


@functools.cache
def _trained():
    """(family, variables, metrics) after 300 steps on a batch of 16.

    The captions 2 and 3 are of a red and a blue picture.
    """
    family, batch = (
        vae.make(
            _config(
                model={**_config().model, "scale": "one", "log_scale": -1.0}, caption_dropout=0.0
            )
        ),
        _batch(16),
    )
    optimizers = {"model": optax.adam(1e-2)}
    current = jax.jit(lambda: state.create(family, optimizers, batch, 0))()
    update = step.make_step(family, optimizers, ema_decay=0.9)

    @jax.jit
    def train(current):
        return jax.lax.scan(lambda s, _: update(s, FROZEN, batch), current, length=300)

    current, metrics = train(current)
    return family, Variables(current.params, {}, FROZEN), metrics


def test_kl_is_that_of_monte_carlo():
    mean, log_var = jnp.array([[0.7, -1.2, 0.0]]), jnp.array([[-1.0, 0.5, 0.0]])
    z = np.asarray(
        vae.draw_code(
            jnp.repeat(mean, 200_000, 0), jnp.repeat(log_var, 200_000, 0), _keys(200_000)
        ),
        float,
    )
    samples = stats.norm.logpdf(z, mean, np.exp(0.5 * np.asarray(log_var))) - stats.norm.logpdf(z)
    error = samples.std(0) / len(z) ** 0.5
    closed = np.asarray(vae.kl_from_prior(mean, log_var))[0]
    assert (np.abs(samples.mean(0) - closed) <= 4 * error + 1e-6).all() and closed[2] == 0.0


class _LinearEncoder(nn.Module):
    """mean and log-variance are linear in the pixels."""

    latent: int = 2

    @nn.compact
    def __call__(self, x, text):
        return tuple(
            jnp.split(nn.Dense(2 * self.latent, name="linear")(x.reshape(len(x), -1)), 2, axis=-1)
        )


class _LinearDecoder(nn.Module):
    """A mean that is linear in the code: probabilistic PCA, whose evidence is normal."""

    resolution: int = 2
    channels: int = 1
    likelihood: str = "gaussian"

    @nn.compact
    def __call__(self, z, text):
        return Pixels(nn.Dense(4, name="linear")(z).reshape(-1, 2, 2, 1), jnp.float32(np.log(0.3)))


@pytest.fixture(scope="module")
def linear():
    """(make, exact parameters, a batch of one picture, its log evidence, posterior variance)."""

    def make(**sections):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                vae,
                "make_networks",
                lambda config, resolution: (_LinearEncoder(), _LinearDecoder()),
            )
            return vae.make(_config(data={"resolution": 2}, caption_dropout=0.0, **sections))

    # At right angles, so that the posterior has no covariance.
    weights = np.array([[0.5, 0.5, 0.1, 0.1], [0.2, -0.2, 0.3, -0.3]])
    bias, noise = np.array([0.1, 0.0, -0.2, 0.3]), 0.3**2
    variance = 1 / (1 + (weights**2).sum(1) / noise)
    kernel = np.concatenate([weights.T * variance / noise, np.zeros((4, 2))], 1)
    encoder = {"kernel": kernel, "bias": np.concatenate([-bias @ kernel[:, :2], np.log(variance)])}
    networks = {
        "encoder": {"linear": encoder},
        "decoder": {"linear": {"kernel": weights, "bias": bias}},
    }
    image = np.repeat(np.array([200, 90, 30, 160], np.uint8).reshape(1, 2, 2, 1), 3, -1)
    batch = {"image": image, "text": jax.tree.map(lambda x: x[:1], _batch()["text"])}
    params = _params(make(), batch)
    params["model"].update(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), networks))
    x = np.asarray(to_unit(image)[..., 0]).ravel()
    evidence = stats.multivariate_normal.logpdf(x, bias, weights.T @ weights + noise * np.eye(4))
    return make, params, batch, evidence, variance


def _many(batch, count):
    return jax.tree.map(lambda x: np.repeat(x, count, 0), batch)


def test_bound_is_the_evidence_where_the_posterior_is_exact(linear):
    make, params, batch, evidence, variance = linear
    count = 40_000
    loss, many, keys = _loss_of(make()), _many(batch, count), _keys(count)
    losses, metrics = loss(params, many, keys)
    error = losses.std() / count**0.5
    assert error < 0.02 and abs(-losses.mean() - evidence) < 4 * error
    np.testing.assert_allclose(losses, metrics["reconstruction"] + metrics["kl"], rtol=1e-5)
    bits = (losses / 4 + np.log(127.5)) / np.log(2)
    np.testing.assert_allclose(metrics["bits_per_dimension"], bits, rtol=1e-5)

    # With another posterior the bound is lower by the KL from the true one.
    wider = jax.tree.map(jnp.copy, params)
    wider["model"]["encoder"]["linear"]["bias"] += jnp.array([0.2, 0.0, 1.0, 0.0])
    gap = 0.5 * (np.e + 0.2**2 / variance[0] - 1 - 1)
    losses, _ = loss(wider, many, keys)
    error = losses.std() / count**0.5
    assert abs(evidence + losses.mean() - gap) < 4 * error and gap > 10 * error


def test_importance_weights_find_the_evidence_above_the_bound(linear):
    make, params, batch, evidence, variance = linear
    family, count = make(), 40_000
    wider = jax.tree.map(jnp.copy, params)
    wider["model"]["encoder"]["linear"]["bias"] += jnp.array([0.2, 0.0, 1.0, 0.0])
    variables = Variables(wider, {}, FROZEN)
    draws = jax.jit(family.abilities["encode"])(variables, _many(batch, count), _keys(count))
    mean = family.abilities["encode"](variables, batch)
    z, q = np.asarray(draws, float), np.sqrt(variance * np.array([np.e, 1.0]))
    x = np.asarray(to_unit(batch["image"])[..., 0]).ravel()
    decoder = params["model"]["decoder"]["linear"]
    log_weight = stats.norm.logpdf(
        x, z @ np.asarray(decoder["kernel"]) + np.asarray(decoder["bias"]), 0.3
    ).sum(1)
    log_weight += stats.norm.logpdf(z).sum(1) - stats.norm.logpdf(z, mean, q).sum(1)
    np.testing.assert_allclose(special.logsumexp(log_weight) - np.log(count), evidence, atol=0.03)
    assert log_weight.mean() < evidence - 0.1  # the bound


def test_noise_is_added_for_the_encoder_but_not_in_the_likelihood(linear):
    make, params, batch, _, _ = linear
    clean, noisy = _loss_of(make()), _loss_of(make(vae={"denoise": 100.0}))
    many = _many(batch, 8)
    assert np.abs(noisy(params, many, _keys(8))[0] - clean(params, many, _keys(8))[0]).min() > 1e-4
    blind = jax.tree.map(jnp.copy, params)
    blind["model"]["encoder"]["linear"]["kernel"] *= 0
    np.testing.assert_allclose(
        noisy(blind, many, _keys(8))[0], clean(blind, many, _keys(8))[0], rtol=1e-6
    )


def test_each_picture_has_noise_of_its_own_strength():
    x, add = jnp.zeros((2000, 6, 6, 1)), jax.jit(vae.add_noise)
    strength = np.asarray(add(x, _keys(2000), 20.0)).std((1, 2, 3)) * 127.5
    assert (
        strength.max() < 20 * 1.5
        and stats.kstest(strength, stats.uniform(0, 20).cdf).statistic < 0.06
    )
    assert np.abs(add(x, _keys(2000), 5000.0)).max() == 1.0


def test_warm_up_and_free_bits_in_closed_form():
    np.testing.assert_allclose(
        [vae.kl_weight(s, 4.0, 3) for s in (0, 1, 3, 9)], [1.0, 2.0, 4.0, 4.0]
    )
    assert vae.kl_weight(0, 4.0, 0) == 4.0
    kl = jnp.array([[0.1, 2.0], [0.3, 1.0]])
    cost = vae.with_free_bits(kl, kl.mean(0), 0.5)
    np.testing.assert_allclose(cost.mean(0), [0.5, 1.5])
    gradient = jax.grad(lambda kl: vae.with_free_bits(kl, kl.mean(0), 0.5).mean(0).sum())(kl)
    np.testing.assert_allclose(gradient, [[0.0, 0.5], [0.0, 0.5]])

    family = vae.make(
        _config(vae={"beta": 3.0, "warmup": 9, "free_bits": 50.0}, caption_dropout=0.0)
    )
    params = _params(family, _batch())
    training, measuring = _loss_of(family, train=True), _loss_of(family)
    for loss, at, weight in ((training, 0, 0.3), (training, 99, 3.0), (measuring, 0, 3.0)):
        losses, metrics = loss(params, _batch(), _keys(), at)
        np.testing.assert_allclose(losses, metrics["reconstruction"] + weight * 2 * 50.0, rtol=1e-5)


def test_free_bits_use_the_whole_batch_on_many_devices():
    config, batch, keys = _config(vae={"free_bits": 0.02}), _batch(), _keys()
    plain, split = vae.make(config), vae.make(config, "devices")
    params = _params(plain, batch)
    # One unit below, one above.
    params["model"]["encoder"]["posterior"]["bias"] = jnp.array([0.0, 0.0, 0.0, 2.0])
    parts = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), (batch, keys))
    each = jax.jit(
        jax.vmap(
            lambda b, k: split.losses["model"](params, Context({}, FROZEN, None, 0, b, k)),
            axis_name="devices",
        )
    )
    losses, (_, metrics) = each(*parts)
    expected, alone = _loss_of(plain, train=True)(params, batch, keys)
    np.testing.assert_allclose(losses.ravel(), expected, rtol=1e-5)
    np.testing.assert_array_equal(metrics["active_units"].ravel(), alone["active_units"])


def test_learns_and_captions_decide():
    family, variables, metrics = _trained()
    assert metrics["loss"][-10:].mean() < metrics["loss"][0] - 100  # nats
    text = _batch()["text"]
    sample = jax.jit(family.abilities["sample"])
    drawn = np.asarray(sample(variables, {"text": text}, _keys(), temperature=0.5), int)
    assert drawn.shape == (4, 8, 8, 3)
    assert np.abs(drawn - _batch()["image"].astype(int)).mean() < 25
    other = jax.tree.map(lambda x: x[::-1], text)
    swapped = np.asarray(sample(variables, {"text": other}, _keys(), temperature=0.5), int)
    assert (np.abs(swapped - drawn)[..., [0, 2]].mean((1, 2, 3)) > 100).all()


def test_a_picture_depends_on_its_key_and_not_on_its_batch():
    """The same keys give the same pictures, and other keys give other ones."""
    family, variables, _ = _trained()
    text, sample = _batch(4)["text"], jax.jit(family.abilities["sample"])
    together = np.asarray(sample(variables, {"text": text}, _keys(), temperature=3.0), int)
    np.testing.assert_array_equal(
        sample(variables, {"text": text}, _keys(), temperature=3.0), together
    )
    alone = sample(
        variables, {"text": jax.tree.map(lambda a: a[2:3], text)}, _keys()[2:3], temperature=3.0
    )
    assert np.abs(alone[0] - together[2]).max() <= 1
    moved = np.asarray(sample(variables, {"text": text}, _keys(seed=1), temperature=3.0), int)
    assert (np.abs(moved - together).max((1, 2, 3)) > 1).all()
    still = np.asarray(sample(variables, {"text": text}, _keys(), temperature=0.0))
    np.testing.assert_array_equal(still[0], still[2])  # the same caption, and no chance


def test_encode_decode_reconstruct_interpolate():
    family, variables, _ = _trained()
    image, text = _batch()["image"], _batch()["text"]
    encode, decode, reconstruct, interpolate = (
        jax.jit(family.abilities[name], static_argnames="steps" if name == "interpolate" else ())
        for name in ("encode", "decode", "reconstruct", "interpolate")
    )
    again = reconstruct(variables, {"image": image}, None)  # without a text, as in evaluation
    null = {
        "transformer": jax.tree.map(
            lambda x: np.broadcast_to(x, (4, *x.shape)), NULL["transformer"]
        )
    }
    np.testing.assert_array_equal(
        reconstruct(variables, {"image": image, "text": null}, None), again
    )
    codes = encode(variables, {"image": image, "text": text})
    conditional = reconstruct(variables, {"image": image, "text": text}, None)
    assert np.abs(np.asarray(conditional, int) - np.asarray(image, int)).mean() < 25
    np.testing.assert_array_equal(decode(variables, {"latent": codes, "text": text}), conditional)
    draws = encode(variables, {"image": image, "text": text}, _keys())
    assert (np.abs(draws - codes).max(1) > 1e-4).all()
    way = interpolate(variables, {"image": image, "image_b": image[::-1]}, steps=5)
    assert way.shape == (4, 5, 8, 8, 3)
    for end, pictures in ((0, again), (4, again[::-1])):
        assert np.abs(np.asarray(way[:, end], int) - np.asarray(pictures, int)).max() <= 1


def test_the_way_between_two_codes():
    a, b = (
        jnp.array([[3.0, 0.0], [1.0, 0.0], [2.0, 2.0]]),
        jnp.array([[0.0, 3.0], [-1.0, 0.0], [2.0, 2.0]]),
    )
    way = np.asarray(latent_abilities.spherical_interpolation(a, b, jnp.linspace(0.0, 1.0, 5)))
    np.testing.assert_allclose(
        way[0],
        3
        * np.stack([np.cos(np.linspace(0, np.pi / 2, 5)), np.sin(np.linspace(0, np.pi / 2, 5))], 1),
        atol=1e-5,
    )
    np.testing.assert_allclose(way[1, :, 0], [1, 0.5, 0, -0.5, -1], atol=1e-6)  # opposite: straight
    np.testing.assert_allclose(way[2], np.full((5, 2), 2.0), rtol=1e-6)


def test_bad_fields():
    with pytest.raises(
        ValueError, match=r"vae.bata is unknown: vae has beta, warmup, free_bits, denoise"
    ):
        vae.make(_config(vae={"bata": 2.0}))
    config = _config(model={**_config().model, "net": "conv"}, data={"resolution": 7})
    with pytest.raises(ValueError, match=r"7 px cannot be halved 1 times.*such as 8"):
        vae.make(config)
    with pytest.raises(ValueError, match=r"no likelihood 'poisson'"):
        vae.make(_config(model={**_config().model, "likelihood": "poisson"}))
