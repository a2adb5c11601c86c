"""The contrastive family: its losses in closed form, on any devices, and a toy problem."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax import config as configs
from t2i_jax.core import state
from t2i_jax.core.family import Variables
from t2i_jax.families.contrastive import limit_scale
from t2i_jax.families.contrastive_loss import KINDS, contrast
from t2i_jax.families.load import load_family, load_trained
from t2i_jax.training import step
from tests.conftest import ROOT

COUNT = 16
SCALE, BIAS = 7.0, -2.0


def vectors(seed):
    x = np.random.default_rng(seed).normal(size=(COUNT, 4))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


IMAGES, CAPTIONS = vectors(0), vectors(1)
TOKENS = np.stack([np.arange(COUNT), np.zeros(COUNT)], axis=1).astype(np.int32)
TOKENS[[3, 12]] = TOKENS[5]  # three equal captions
ONES = np.ones(COUNT, np.float32)


def losses(kind, image=IMAGES, caption=CAPTIONS, tokens=TOKENS, weight=ONES, axis=None):
    def logits(a, b):
        return SCALE * a @ b.T + BIAS

    return contrast(KINDS[kind], logits, image, caption, tokens, weight, axis)


def by_hand(kind, count=COUNT):
    """The loss of each of the first `count` examples, one after another, in NumPy."""
    logits, found = SCALE * IMAGES @ CAPTIONS.T + BIAS, []
    for i in range(count):
        others = [j for j in range(count) if j == i or TOKENS[j, 0] != TOKENS[i, 0]]
        if kind == "softmax":
            rows, columns = logits[i, others], logits[others, i]
            nats = np.log(np.exp(rows).sum()) + np.log(np.exp(columns).sum())
            found.append(nats / 2 - logits[i, i])
        else:
            right = [1 / (1 + np.exp(-logits[i, j] * (1 if i == j else -1))) for j in others]
            found.append(-np.log(right).sum())
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_closed_form_and_what_only_pads_a_batch(kind):
    """Equal captions are left out; so are rows of weight 0, whatever is in them."""
    found, nearest = losses(kind)
    np.testing.assert_allclose(found, by_hand(kind), rtol=1e-5)
    cosine = IMAGES @ CAPTIONS.T
    same = (TOKENS[:, None, 0] == TOKENS[:, 0]) & ~np.eye(COUNT, dtype=bool)
    expected = np.where(same, -2, cosine).argmax(1) == np.arange(COUNT)
    np.testing.assert_array_equal(nearest, expected)
    padded, _ = losses(kind, weight=np.where(np.arange(COUNT) < 11, ONES, 0))
    np.testing.assert_allclose(padded[:11], by_hand(kind, 11), rtol=1e-5)
    assert np.isfinite(padded).all()


@pytest.mark.parametrize("kind", KINDS)
def test_eight_devices_give_the_loss_and_the_gradient_of_one(kind):
    """Under pmap, each device gathers the examples of the others. The padding is on the last."""
    weight = np.where(np.arange(COUNT) < 14, ONES, 0)

    def mean(image, caption, tokens, weight, axis=None):
        found, _ = losses(kind, image, caption, tokens, weight, axis)
        return (found * weight).mean(), found

    def per_device(*arrays):
        return jax.value_and_grad(lambda *x: mean(*x, "batch"), (0, 1), has_aux=True)(*arrays)

    arrays = (IMAGES, CAPTIONS, TOKENS, weight)
    (_, one), gradients = jax.value_and_grad(mean, (0, 1), has_aux=True)(*arrays)
    split = [x.reshape(8, 2, *x.shape[1:]) for x in arrays]
    (_, eight), of_parts = jax.pmap(per_device, "batch")(*split)
    np.testing.assert_allclose(np.reshape(eight, COUNT), one, rtol=1e-5)
    for ours, theirs in zip(of_parts, gradients, strict=True):
        # Each device has the mean of its own part: the step takes the mean over devices.
        np.testing.assert_allclose(ours.reshape(theirs.shape) / 8, theirs, rtol=1e-4, atol=1e-7)


OVERRIDES = (
    *("data.resolution=8", "text.length=3", "text.depth=0", "text.window=0", "model.depth=1"),
    "contrastive.channels=8",
)


def load(*overrides):
    return load_family(
        configs.load(f"{ROOT}/configs/shapes_contrastive.py:smoke", (*OVERRIDES, *overrides))
    )


def every_pair():
    """Pictures of 4 grey levels, left half and right half, and captions that name both."""
    left, right = np.divmod(np.arange(COUNT), 4)
    halves = np.stack([left, right], 1)[:, None, :, None] * np.uint8(80)
    image = np.broadcast_to(halves, (COUNT, 8, 2, 3)).repeat(4, axis=2).astype(np.uint8)
    tokens = np.stack([10 + left, 20 + right, np.ones_like(left)], 1).astype(np.int32)
    text = {"tokens": tokens, "mask": np.ones(tokens.shape, bool)}
    return {"image": image, "text": {"transformer": text}, "index": np.arange(COUNT)}


def test_a_toy_problem_is_learned():
    """Every picture finds its own caption, and the loss is near 0."""
    family, batch = load(), every_pair()
    optimizers = {"model": optax.adam(1e-2)}
    current = jax.jit(lambda: state.create(family, optimizers, batch, 0))()
    update = jax.jit(step.make_step(family, optimizers, ema_decay=0.9))
    for _ in range(60):
        current, metrics = update(current, {}, batch)
    assert metrics["loss"] < 0.1 and metrics["accuracy"] == 1
    variables = Variables(current.params, {}, {})
    image, text = jax.jit(
        lambda variables: [ability(variables, batch, None) for ability in family.abilities.values()]
    )(variables)
    assert image.dtype == text.dtype == np.float32 and image.shape == text.shape == (COUNT, 8)
    for found in (image, text):
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal((image @ text.T).argmax(1), np.arange(COUNT))


def test_the_scale_is_limited():
    for scale, limited in ((500.0, 100.0), (20.0, 20.0)):
        params = {"space": {"log_scale": jnp.float32(math.log(scale)), "offset": 1.0}, "text": {}}
        after = limit_scale("model", params)
        np.testing.assert_allclose(np.exp(after["space"]["log_scale"]), limited, rtol=1e-5)
        assert after["space"]["offset"] == 1.0 and after["text"] == {}


def test_an_adapter_has_no_scale_to_limit():
    config = configs.load(f"{ROOT}/configs/shapes_contrastive.py:smoke", ["lora.rank=1"])
    adapter = {"space": {}}
    assert load_trained(config).constrain("model", adapter) is adapter


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.accumulate=2", "train.accumulate is 2: .* a part of it has fewer. Let it be 1"),
        ("optim.clip_examples=1.0", "a contrastive loss compares examples: let it be 0"),
        ("train.batch_size=1", "train.batch_size is 1: .* at least 2"),
        ("text.encoder=none", "has to read captions"),
    ],
)
def test_settings_that_cannot_be_compared(override, message):
    with pytest.raises(ValueError, match=message):
        load(override)
