"""The captioner learns a toy problem whose answer is known."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax import config as configs
from t2i_jax.core import state
from t2i_jax.core.family import Context, Variables
from t2i_jax.families.captioning import make_view, make_word_decoder, word_loss
from t2i_jax.families.load import load_family
from t2i_jax.text.tokenizer import END, PAD
from t2i_jax.training import step
from tests.conftest import ROOT

OVERRIDES = (
    "data.resolution=8",
    "image_tokenizer.codes=2",
    "text.length=4",
    "text.vocab_size=300",
    "model.depth=1",
)
# Dark above bright is "5 6" or, as often, "7"; bright above dark has the empty caption.
SAID = {"dark": [[5, 6, END, PAD], [7, END, PAD, PAD]], "bright": [[END, PAD, PAD, PAD]]}
DARK = np.repeat(np.array([64, 64, 191, 191], np.uint8), 2)[:, None, None] * np.ones(
    (8, 8, 3), np.uint8
)
FROZEN: Any = {"first_stage": {"codebook": jnp.stack([jnp.full(48, -0.5), jnp.full(48, 0.5)])}}


def load(*overrides):
    return load_family(
        configs.load(f"{ROOT}/configs/shapes_captioner.py:smoke", (*OVERRIDES, *overrides))
    )


def batch_of(count):
    """Pictures and captions in turn: dark, bright, dark, bright, ..."""
    captions = [SAID["bright"][0] if i % 2 else SAID["dark"][i // 2 % 2] for i in range(count)]
    tokens = np.array(captions, np.int32)
    text = {"tokens": tokens, "mask": np.cumsum(np.cumsum(tokens == END, 1), 1) <= 1}
    image = np.stack([DARK[::-1] if i % 2 else DARK for i in range(count)])
    return {
        "image": image,
        "text": {"transformer": text},
        "index": np.arange(count, dtype=np.int32),
    }


@pytest.fixture(scope="module")
def trained():
    family, batch = load(), batch_of(32)
    optimizers = {"model": optax.adam(1e-2)}
    current = jax.jit(lambda: state.create(family, optimizers, batch, 0))()
    update, metrics = jax.jit(step.make_step(family, optimizers, ema_decay=0.5)), {}
    for _ in range(60):
        current, metrics = update(current, FROZEN, batch)
    return family, Variables(current.params, {}, FROZEN), metrics


def keys_of(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@functools.partial(jax.jit, static_argnames=("caption", "beams"))
def compiled(caption, variables, image, keys, beams, settings):
    return caption(variables, {"image": image}, keys, beams=beams, **settings)


def captions(trained, keys, beams=1, temperature=0.0, top_p=1.0):
    """Return captions of 200 pictures, dark and bright in turn."""
    family, variables, _ = trained
    settings = {"temperature": temperature, "top_p": top_p, "length_penalty": 0.6}
    return np.asarray(
        compiled(
            family.abilities["caption"], variables, batch_of(200)["image"], keys, beams, settings
        )
    )


def test_learns_what_can_be_known(trained):
    """Only the first token of a dark picture is uncertain, by log 2.

    Its captions have 3 or 2 tokens, so that log 2 * (1/3 + 1/2) / 2 remains, for half the pictures.
    """
    family, variables, metrics = trained
    least = np.log(2) * (1 / 3 + 1 / 2) / 2 / 2
    assert least - 1e-3 < metrics["loss"] < least + 0.02
    ctx = Context({}, variables.frozen, None, 0, batch_of(4), keys_of(4), train=False)
    losses, (_, more) = jax.jit(lambda params: family.losses["model"](params, ctx))(
        variables.params
    )
    assert (
        losses.shape == (4,)
        and (losses[1::2] < 0.02).all()
        and (more["token_accuracy"][1::2] == 1).all()
    )


def test_captions_fit_their_pictures(trained):
    said = captions(trained, keys_of(200))
    assert said.dtype == np.int32 and said[0].tolist() in SAID["dark"]
    np.testing.assert_array_equal(said, np.tile([said[0], SAID["bright"][0]], (100, 1)))
    np.testing.assert_array_equal(captions(trained, keys_of(200), beams=2), said)
    np.testing.assert_array_equal(
        captions(trained, keys_of(200), temperature=1.0, top_p=1e-6), said
    )


def test_both_captions_are_drawn_and_a_key_decides_which(trained):
    drawn = captions(trained, keys_of(200), temperature=1.0)
    either = [(drawn[::2] == said).all(1).mean() for said in SAID["dark"]]
    assert 0.3 < either[0] < 0.7 and sum(either) > 0.95
    moved = captions(trained, jnp.roll(keys_of(200), 2), temperature=1.0)
    np.testing.assert_array_equal(moved, np.roll(drawn, 2, axis=0))


def test_codes_in_the_batch_replace_the_picture(trained):
    family, variables, _ = trained
    batch = batch_of(4)
    found = family.encoding.compute(variables.frozen, batch["image"])
    assert found["codes"].tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]] * 2
    loss = jax.jit(
        lambda batch: family.losses["model"](
            variables.params, Context({}, variables.frozen, None, 0, batch, None, False)
        )[0]
    )
    cached = {name: value for name, value in batch.items() if name != "image"}
    np.testing.assert_allclose(loss({**cached, **found}), loss(batch), rtol=1e-6)
    assert np.abs(loss({**cached, "codes": found["codes"][::-1]}) - loss(batch)).min() > 1


def test_features_are_a_map_of_efficientnet_lite0():
    family = load("captioner.source=features", "captioner.map=4")
    with pytest.raises(FileNotFoundError, match="prepare --weights=efficientnet_lite0"):
        family.make_frozen(None, None)
    features = np.random.default_rng(0).normal(size=(4, 7 * 7, 320)).astype(np.float16)
    batch = {"text": batch_of(4)["text"], "features": features}
    params, extra = jax.jit(family.init)(jax.random.key(0), batch)
    params["model"]["net"]["head"] = jax.random.normal(jax.random.key(1), (300, 32))

    @jax.jit
    def loss(features):
        return family.losses["model"](
            params, Context(extra, {}, None, 0, {**batch, "features": features}, keys_of(4), False)
        )[0]

    # A layer norm makes the scale irrelevant.
    np.testing.assert_allclose(loss(3 * features), loss(features), rtol=1e-2)
    assert np.abs(loss(features[::-1]) - loss(features)).min() > 1e-3


def test_word_loss_in_closed_form():
    tokens, mask = (
        jnp.array([[2, 1, 0], [1, 0, 0]]),
        jnp.array([[True, True, False], [True, False, False]]),
    )
    logits = jnp.log(
        jnp.array(
            [
                [[0.1, 0.2, 0.7], [0.2, 0.3, 0.5], [1, 1, 1]],
                [[0.25, 0.5, 0.25], [1, 1, 1], [1, 1, 1]],
            ]
        )
    )
    loss, right = word_loss(logits, tokens, mask)
    np.testing.assert_allclose(loss, [-(np.log(0.7) + np.log(0.3)) / 2, np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(right, [0.5, 1])
    smooth, _ = word_loss(logits, tokens, mask, 0.3)
    np.testing.assert_allclose(
        smooth[1], 0.7 * np.log(2) - 0.3 * np.log([0.25, 0.5, 0.25]).mean(), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("captioner.source=pixels", "captioner.source is 'pixels': it must be codes or features"),
        ("text.encoder=minilm", "captions are written in the tokens of 'transformer'"),
        ("model.heads=3", "width of 32 is not a multiple of 3 heads"),
    ],
)
def test_bad_fields(override, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(load(override).init, jax.random.key(0), batch_of(1))


def test_an_unknown_source():
    config = configs.load(f"{ROOT}/configs/shapes_captioner.py:smoke", OVERRIDES)
    with config.unlocked():
        config.captioner.source = "pixels"
    with pytest.raises(ValueError, match="source = 'pixels': it can be codes or features"):
        load_family(config)


def test_there_are_five_maps():
    with pytest.raises(
        ValueError, match="the maps are 0: 112 x 112, 1: 56 x 56, 2: 28 x 28, 3: 14 x 14, 4: 7 x 7"
    ):
        load("captioner.source=features", "captioner.map=5")


def with_contrastive(weight, train, batch=None, params=None):
    """Return (parameters, loss [4], metrics) of a captioner with a contrastive loss."""
    family = load(f"captioner.contrastive={weight}", "text.depth=0", "text.window=0")
    batch = batch or batch_of(4)
    params = params or jax.jit(family.init)(jax.random.key(0), batch)[0]

    @jax.jit
    def compute(params):
        ctx = Context({}, FROZEN, None, 0, batch, keys_of(4), train, jnp.ones(4))
        loss, (_, metrics) = family.losses["model"](params, ctx)
        return loss, metrics

    return params, *compute(params)


def test_the_contrastive_loss_counts_in_training_alone():
    """It is added with its weight. A captioner without it has the same cross-entropy."""
    params, trained, metrics = with_contrastive(0.5, train=True)
    assert set(params["model"]) == {"net", "text", "space"}
    _, measured, _ = with_contrastive(0.5, train=False, params=params)
    np.testing.assert_allclose(trained - measured, 0.5 * metrics["contrastive"], rtol=1e-4)
    alone, without, fewer = with_contrastive(0.0, train=True)
    assert set(alone["model"]) == {"net"} and set(fewer) == {"token_accuracy"}
    np.testing.assert_allclose(without, measured, rtol=1e-5)


def test_the_contrastive_loss_in_closed_form():
    """Pictures 0 and 2 are dark with two captions; 1 and 3 are bright and have equal captions.

    A vector is the mean over a picture's places, which no word takes part in. The space is checked
    by NumPy, from the vectors of the picture and of the caption.
    """
    params, _, metrics = with_contrastive(1.0, train=False)
    model, batch = params["model"], batch_of(4)
    config = configs.load(f"{ROOT}/configs/shapes_captioner.py:smoke", OVERRIDES)
    view = make_view(config, "codes", 0)
    decoder = make_word_decoder(config, view, config.model)
    codes = view.encoding.compute(FROZEN, batch["image"])["codes"]
    _, picture = decoder.apply(
        {"params": model["net"]},
        view.vectors(FROZEN, codes),
        np.zeros((4, 4), np.int32),
        method="with_picture",
    )
    words = batch["text"]["transformer"]
    table = np.asarray(model["text"]["embed"]["embedding"])[words["tokens"]]
    caption = (table * words["mask"][..., None]).sum(1) / words["mask"].sum(1)[:, None]
    a, b = (
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (
            np.asarray(picture) @ model["space"]["image"]["kernel"],
            caption @ np.asarray(model["space"]["text"]["kernel"]),
        )
    )
    logits = a @ b.T / 0.07
    for i, others in enumerate([[0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 3], [0, 2, 3]]):
        rows, columns = np.exp(logits[i, others]), np.exp(logits[others, i])
        expected = (np.log(rows.sum()) + np.log(columns.sum())) / 2 - logits[i, i]
        np.testing.assert_allclose(metrics["contrastive"][i], expected, rtol=1e-3)


def test_the_contrastive_loss_needs_whole_batches():
    with pytest.raises(ValueError, match=r"train\.accumulate is 2: a contrastive loss"):
        load("captioner.contrastive=0.5", "train.accumulate=2")
    assert load("train.accumulate=2")
