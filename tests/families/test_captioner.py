"""The captioner learns a toy problem whose answer is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax import config as configs
from t2i_jax.core import state
from t2i_jax.core.family import Context, Variables
from t2i_jax.families.captioning import word_loss
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
    codebook = jnp.stack([jnp.full(48, -0.5), jnp.full(48, 0.5)])
    frozen = {"first_stage": {"codebook": codebook}}
    optimizers = {"model": optax.adam(1e-2)}
    current = jax.jit(lambda: state.create(family, optimizers, batch, 0))()
    update, metrics = jax.jit(step.make_step(family, optimizers, ema_decay=0.5)), {}
    for _ in range(60):
        current, metrics = update(current, frozen, batch)
    return family, Variables(current.params, {}, frozen), metrics


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
