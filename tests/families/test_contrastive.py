"""The contrastive family: its losses in closed form, on any devices, and a toy problem."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from t2i_jax import cli
from t2i_jax import config as configs
from t2i_jax.core import state
from t2i_jax.core.family import Context, Encoding, Variables
from t2i_jax.evaluation import picture_features
from t2i_jax.evaluation.draw import for_display
from t2i_jax.families.captioning import PictureView
from t2i_jax.families.contrastive import limit_scale
from t2i_jax.families.contrastive_loss import KINDS, contrast
from t2i_jax.families.load import load_family, load_trained
from t2i_jax.metrics import retrieval
from t2i_jax.pipeline import Pipeline
from t2i_jax.text import tokenizer as tokenizers
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


@functools.partial(jax.jit, static_argnames=("kind", "axis"))
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
    (_, one), gradients = jax.jit(jax.value_and_grad(mean, (0, 1), has_aux=True))(*arrays)
    split = [x.reshape(8, 2, *x.shape[1:]) for x in arrays]
    (_, eight), of_parts = jax.pmap(per_device, "batch")(*split)
    np.testing.assert_allclose(np.reshape(eight, COUNT), one, rtol=1e-5)
    for ours, theirs in zip(of_parts, gradients, strict=True):
        # Each device has the mean of its own part: the step takes the mean over devices.
        np.testing.assert_allclose(ours.reshape(theirs.shape) / 8, theirs, rtol=1e-4, atol=1e-7)


OVERRIDES = (
    *("data.resolution=8", "text.length=6", "text.depth=0", "text.window=0", "model.depth=1"),
    "contrastive.channels=8",
)


def config_with(*overrides):
    return configs.load(f"{ROOT}/configs/shapes_contrastive.py:smoke", (*OVERRIDES, *overrides))


# Pictures of 4 grey levels, left half and right half, and captions that name both.
LEVELS = ("black", "dark", "light", "white")
LEFT, RIGHT = np.divmod(np.arange(COUNT), 4)
PICTURES = np.broadcast_to(
    (np.stack([LEFT, RIGHT], 1) * 85)[:, None, :, None].astype(np.uint8), (COUNT, 8, 2, 3)
).repeat(4, axis=2)
WORDS = [f"{LEVELS[left]} {LEVELS[right]}" for left, right in zip(LEFT, RIGHT, strict=True)]


@pytest.fixture(scope="module")
def trained():
    """A pipeline whose model was trained on all pairs at once, and its last metrics."""
    config = config_with()
    tokenizer = tokenizers.train(WORDS, config.text.vocab_size)
    text, _ = tokenizers.encode(tokenizer, WORDS, config.text.length)
    batch = {"image": PICTURES, "text": {"transformer": text}, "index": np.arange(COUNT)}
    family, optimizers = load_family(config), {"model": optax.adam(1e-2)}
    current = jax.jit(lambda: state.create(family, optimizers, batch, 0))()
    update, metrics = jax.jit(step.make_step(family, optimizers, ema_decay=0.9)), {}
    for _ in range(120):
        current, metrics = update(current, {}, batch)
    return Pipeline(config, family, Variables(current.params, {}, {}), tokenizer), metrics


def test_every_picture_finds_its_own_caption(trained):
    pipe, metrics = trained
    assert metrics["loss"] < 0.3 and metrics["accuracy"] == 1
    image, text = pipe.embed_image(list(PICTURES)), pipe.embed_text(WORDS)
    for found in (image, text):
        assert found.dtype == np.float32 and found.shape == (COUNT, 8)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal((image @ text.T).argmax(1), np.arange(COUNT))
    shown = for_display(pipe, WORDS[::-1], PICTURES, PICTURES[:0])
    assert shown[1] == WORDS  # the caption chosen for each picture, among all


def test_vectors_are_written_to_files(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("t2i_jax.pipeline.load", lambda *_: trained[0])
    for i, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    where = ("--workdir=run", f"--out={tmp_path}/vectors.npy")
    pictures = [f"--image={tmp_path}/{i}.png" for i in range(COUNT)]
    for command, arguments, expected in (
        ("embed_image", pictures, trained[0].embed_image(list(PICTURES))),
        ("embed_text", [f"--prompt={words}" for words in WORDS], trained[0].embed_text(WORDS)),
    ):
        cli.main([command, *where, *arguments])
        np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), expected)


def test_pictures_are_found_by_captions_of_the_same_model_alone(
    trained, tmp_path, monkeypatch, capsys
):
    pipe, other = trained[0], dataclasses.replace(trained[0], weights="ffff")
    monkeypatch.setattr("t2i_jax.pipeline.load", lambda *_: pipe)
    pictures = [f"{tmp_path}/{words}.png" for words in WORDS]
    for path, picture in zip(pictures, PICTURES, strict=True):
        Image.fromarray(picture).save(path)
    where = f"{tmp_path}/vectors.npz"
    cli.main(
        ["embed_image", "--workdir=run", f"--out={where}", *map("--image={}".format, pictures)]
    )
    search = ["embed_text", "--workdir=run", f"--search={where}", *map("--prompt={}".format, WORDS)]
    capsys.readouterr()
    cli.main(search)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 * COUNT
    for line, path, words in zip(lines[::5], pictures, WORDS, strict=True):
        assert line.split("  ")[1:] == [path, words] and float(line.split()[0]) > 0.5
    monkeypatch.setattr("t2i_jax.pipeline.load", lambda *_: other)
    with pytest.raises(SystemExit):
        cli.main(search)
    assert "has vectors of another model (weights" in capsys.readouterr().err


def test_a_run_is_an_extractor_with_a_clip_score(trained, monkeypatch):
    """Its features are its vectors; pictures of another size are resized."""
    pipe = trained[0]
    for name, found in (("load", lambda path: pipe), ("is_run", lambda path: path == "runs/own")):
        monkeypatch.setattr(picture_features, name, found)
    config = configs.load(f"{ROOT}/configs/shapes.py:smoke", ["evaluate.extractor_path=runs/own"])
    own = picture_features.load_extractor(config)
    found = picture_features.extract_features(own, PICTURES.repeat(2, 1).repeat(2, 2))["features"]
    assert (found * pipe.embed_image(list(PICTURES))).sum(1).min() > 0.99
    texts = own.embed_text(WORDS)
    right, wrong = (retrieval.clip_score(found, x)["value"] for x in (texts, texts[::-1]))
    assert right > 50 and right > wrong + 40


def test_what_cannot_be_embedded(trained):
    pipe = trained[0]
    for method in (pipe.embed_image, pipe.embed_text):
        with pytest.raises(ValueError, match="nothing to embed"):
            method([])
    with pytest.warns(UserWarning, match="1 prompt has more than 6 tokens: cut"):
        long = pipe.embed_text(["black dark " * 1000, *WORDS[1:]])
    np.testing.assert_allclose(long[1:], pipe.embed_text(WORDS)[1:], atol=1e-6)


def test_features_take_the_place_of_pictures(monkeypatch):
    """A frozen network computes them, unless they are in the batch."""
    computed = []

    def compute(frozen, image):
        computed.append(len(image))
        return {"features": frozen["extractor"] * jnp.ones((len(image), 6, 5))}

    view = PictureView((2, 3), 5, Encoding(compute, ("extractor",), []), lambda _, x: x, dict)
    monkeypatch.setattr("t2i_jax.families.contrastive.view_of_features", lambda config, _: view)
    family = load_family(config_with("contrastive.source=features", "model.patch=1"))
    assert family.encoding is view.encoding and family.make_frozen is dict
    text = {"tokens": np.zeros((2, 6), np.int32), "mask": np.ones((2, 6), bool)}
    texts = {"text": {"transformer": text}}
    params, _ = jax.eval_shape(family.init, jax.random.key(0), texts)
    assert params["model"]["image"]["patch_in"]["kernel"].shape == (5, 32)

    def loss(params, batch):
        frozen: Any = {"extractor": 3.0}
        ctx = Context({}, frozen, None, 0, {**batch, **texts}, None, False, ONES[:2])
        return family.losses["model"](params, ctx)[0]

    for name, value in (("features", jnp.ones((2, 6, 5))), ("image", PICTURES[:2])):
        assert not computed
        assert jax.eval_shape(loss, params, {name: value}).shape == (2,)
    assert computed == [2]


def test_a_resnet_reads_pictures_too():
    """The first loss of either network is near that of chance, log 16, times the scale's noise."""
    config = configs.load(
        f"{ROOT}/configs/shapes_contrastive.py:resnet",
        [*OVERRIDES[:4], "model.width=4", "model.multipliers=(1,2)", "contrastive.channels=8"],
    )
    family = load_family(config)
    text = {"tokens": np.pad(TOKENS, ((0, 0), (0, 4))), "mask": np.ones((COUNT, 6), bool)}
    batch = {"image": PICTURES, "text": {"transformer": text}}
    params, _ = jax.jit(family.init)(jax.random.key(0), batch)
    assert params["model"]["image"]["pooling"]["query"]["kernel"].shape == (32, 32)

    @jax.jit
    def loss(params):
        ctx = Context({}, {}, None, 0, batch, None, False, ONES)
        return family.losses["model"](params, ctx)[0].mean()

    value, gradient = jax.value_and_grad(loss)(params)
    assert 1.0 < value < 10.0
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient["model"]["image"]["conv_in"]))


def test_another_network_is_refused():
    with pytest.raises(ValueError, match=r"model\.network is 'dit': .* vision_transformer or pict"):
        load_family(configs.load(f"{ROOT}/configs/shapes_contrastive.py", ["model.network=dit"]))


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
        load_family(config_with(override))
