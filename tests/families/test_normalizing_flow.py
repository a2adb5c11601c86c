"""Normalizing flow: levels and logits in closed form, and a tiny model that learns two captions."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from scipy import special, stats

from t2i_jax.core import state
from t2i_jax.core.family import Context, Variables
from t2i_jax.families import normalizing_flow as flow
from t2i_jax.training import step

SIDE = 4
NULL = {"transformer": {"tokens": np.array([1, 0]), "mask": np.array([True, False])}}
FROZEN = {"null_text": NULL}
COLOURS = np.array([[200, 60, 60], [60, 60, 200]])


def _config(**sections):
    text = {"encoder": "transformer", "length": 2, "vocab_size": 8, "width": 8, "depth": 0}
    config = {
        "data": {"resolution": SIDE},
        "text": text,
        "model": {"levels": 2, "depth": 2, "width": 16},
        "caption_dropout": 0.0,
    }
    return ConfigDict({**config, **sections})


def _batch(size=4, seed=0):
    """Noisy red pictures (caption 2) and blue ones (caption 3), in turn."""
    word = np.arange(size) % 2
    tokens = np.stack([word + 2, np.ones_like(word)], 1).astype(np.int32)
    noise = np.random.default_rng(seed).normal(0, 15, (size, SIDE, SIDE, 3))
    image = np.clip(COLOURS[word][:, None, None] + noise, 0, 255).astype(np.uint8)
    return {"image": image, "text": {"transformer": {"tokens": tokens, "mask": tokens > 0}}}


def _keys(size=4, seed=0):
    return jax.random.split(jax.random.key(seed), size)


def _measure(family, params, batch, seed=0):
    """Return (loss [B], bits per dimension [B]) without dropout."""
    keys = _keys(len(batch["image"]), seed)
    ctx = Context({}, FROZEN, None, 0, batch, keys, train=False)
    loss, (_, metrics) = jax.jit(lambda params: family.losses["model"](params, ctx))(params)
    return loss, metrics["bits_per_dimension"]


@functools.cache
def _trained():
    """Return (family, variables, bits per dimension at each of 300 steps).

    Each step has new pictures. A flow learns 32 pictures by heart in fewer steps.
    """
    family = flow.make(_config())
    optimizers = {"model": optax.chain(optax.clip_by_global_norm(10.0), optax.adam(3e-3))}
    batches = [_batch(32, seed) for seed in range(300)]
    current = jax.jit(lambda: state.create(family, optimizers, batches[0], 0))()
    update = step.make_step(family, optimizers, ema_decay=0.9)
    current, metrics = jax.jit(
        lambda current, batches: jax.lax.scan(lambda s, b: update(s, FROZEN, b), current, batches)
    )(current, jax.tree.map(lambda *leaves: np.stack(leaves), *batches))
    return family, Variables(current.params, {}, FROZEN), metrics["bits_per_dimension"]


def test_dequantized_pixels_are_uniform_in_their_level():
    image = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None, None], (256, 16, 16, 3))
    levels = np.arange(256)[:, None, None, None]
    draws = np.asarray(flow.dequantize(image, 1, _keys(256)))
    assert draws.shape == (256, 16, 16, 1)
    # At 255, float32 has steps of 2e-5: a draw can be rounded up to the end of its level.
    assert ((draws >= levels) & (draws <= levels + 1)).all() and (draws < levels + 1).mean() > 0.999
    assert stats.kstest((draws - levels).ravel(), "uniform").pvalue > 0.01
    np.testing.assert_array_equal(
        flow.dequantize(image, 3, None), np.broadcast_to(levels + 0.5, image.shape)
    )


@pytest.mark.parametrize("margin", [1e-6, 0.05])
def test_logits_and_their_slope(margin):
    x = np.linspace(0.25, 255.75, 500)
    logits, log_det = jax.jit(jax.vmap(lambda x: flow.to_logits(x, margin)))(
        jnp.asarray(x, jnp.float32).reshape(-1, 1, 1, 1, 1)
    )
    p = margin + (1 - 2 * margin) * x / 256
    np.testing.assert_allclose(np.ravel(logits), special.logit(p), rtol=1e-4, atol=1e-5)
    slope = (1 - 2 * margin) / 256 / (p * (1 - p))
    np.testing.assert_allclose(np.ravel(log_det), np.log(slope), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("margin", [1e-6, 0.05])
def test_the_probability_of_all_levels(margin):
    """A standard normal density of the logits, as one of pixels, integrates to that between them.

    What is missing to 1 is beyond black and white.
    """
    x = (np.arange(256 * 64) + 0.5) / 64
    logits, log_det = flow.to_logits(jnp.asarray(x, jnp.float32).reshape(-1, 1, 1, 1), margin)
    density = stats.norm.pdf(np.ravel(logits)) * np.exp(np.asarray(log_det, float))
    end = special.logit(1 - margin)
    expected = stats.norm.cdf(end) - stats.norm.cdf(-end)
    np.testing.assert_allclose(density.sum() / 64, expected, rtol=1e-4)


@pytest.mark.parametrize("margin", [1e-6, 0.05])
@pytest.mark.parametrize("place", [0.01, 0.5, 0.99])
def test_logits_give_back_their_level(margin, place):
    levels = np.arange(256).reshape(-1, 1, 1, 1)
    logits, _ = flow.to_logits(jnp.asarray(levels + place, jnp.float32), margin)
    np.testing.assert_array_equal(
        flow.to_picture(logits, margin), np.broadcast_to(levels, (256, 1, 1, 3))
    )
    far = jnp.array([-1e4, 1e4]).reshape(2, 1, 1, 1)
    np.testing.assert_array_equal(flow.to_picture(far, margin)[:, 0, 0, 0], [0, 255])


@pytest.mark.parametrize("channels", [1, 3])
def test_bits_per_dimension_of_an_untrained_flow(channels):
    """It is a rotation: the density of a pixel is that of a logit under a standard normal."""
    family = flow.make(_config(model={**_config().model, "channels": channels}))
    grey = np.full((64, SIDE, SIDE, 3), 200, np.uint8)
    batch = {**_batch(64), "image": grey}
    params, _ = family.init(jax.random.key(0), batch)
    loss, bits = _measure(family, params, batch)
    p = flow.FLOW_FIELDS["margin"].default
    p = p + (1 - 2 * p) * 200.5 / 256
    slope = (1 - 2 * flow.FLOW_FIELDS["margin"].default) / 256 / (p * (1 - p))
    nats = -stats.norm.logpdf(special.logit(p)) - np.log(slope)
    np.testing.assert_allclose(bits.mean(), nats / np.log(2), rtol=1e-4)
    np.testing.assert_allclose(loss, bits * SIDE**2 * channels * math.log(2), rtol=1e-5)


def test_the_likelihood_rises_and_is_higher_for_the_caption_that_matches():
    family, variables, bits = _trained()
    assert bits[-10:].mean() < bits[0] - 0.5
    unseen = _batch(16, seed=1000)
    matching, bits = _measure(family, variables.params, unseen)
    swapped = {**unseen, "text": jax.tree.map(lambda x: x[::-1], unseen["text"])}
    other, _ = _measure(family, variables.params, swapped)
    assert (matching < other - 10).all()  # nats
    # Noise of a known entropy; a small model comes near.
    entropy = np.log2(15 * np.sqrt(2 * np.pi * np.e))
    assert entropy - 0.1 < bits.mean() < entropy + 1.0


def test_samples_follow_their_captions_and_their_keys():
    family, variables, _ = _trained()
    sample, text = jax.jit(family.abilities["sample"]), _batch()["text"]
    drawn = np.asarray(sample(variables, {"text": text}, _keys(), temperature=0.7), int)
    colours = drawn.mean((1, 2))
    assert np.abs(colours - COLOURS[np.arange(4) % 2]).max() < 40
    order = np.array([2, 1, 0, 3])  # of the same captions
    moved = np.asarray(sample(variables, {"text": text}, _keys()[order], temperature=0.7), int)
    assert np.abs(moved - drawn[order]).max() <= 1 and (moved[0] != drawn[0]).any()
    still = sample(variables, {"text": text}, _keys(), temperature=0.0)
    np.testing.assert_array_equal(still[:2], still[2:])


def test_encode_decode_reconstruct_interpolate():
    family, variables, _ = _trained()
    image, text = _batch()["image"], _batch()["text"]
    encode, decode, reconstruct, interpolate = (
        jax.jit(family.abilities[name], static_argnames="steps" if name == "interpolate" else ())
        for name in ("encode", "decode", "reconstruct", "interpolate")
    )
    for inputs in ({"image": image}, {"image": image, "text": text}):
        np.testing.assert_array_equal(reconstruct(variables, inputs), image)  # nothing is lost
        np.testing.assert_array_equal(reconstruct(variables, inputs, _keys()), image)
    inputs = {"image": image, "text": text}
    latent = encode(variables, inputs)
    assert latent.shape == (4, 3 * SIDE**2) and 0.3 < latent.std() < 2
    np.testing.assert_array_equal(decode(variables, {"latent": latent, "text": text}), image)
    assert (np.abs(encode(variables, inputs, _keys()) - latent).max(1) > 1e-3).all()
    way = interpolate(variables, {**inputs, "image_b": image[::-1]}, steps=5)
    assert way.shape == (4, 5, SIDE, SIDE, 3)
    np.testing.assert_array_equal(way[:, 0], image)
    np.testing.assert_array_equal(way[:, 4], image[::-1])


def test_bad_fields():
    with pytest.raises(ValueError, match=r"normalizing_flow.margn is unknown.*margin"):
        flow.make(_config(normalizing_flow={"margn": 0.1}))
    with pytest.raises(ValueError, match=r"6 px cannot be halved 2 times.*such as 8"):
        flow.make(_config(data={"resolution": 6}))
