"""The masked family: which tokens its loss counts, and that a tiny model draws and inpaints."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax import config as configs
from t2i_jax.core import state
from t2i_jax.core.family import Context, Variables
from t2i_jax.decoding.parallel import mask_schedule
from t2i_jax.families.load import load_family
from t2i_jax.families.masked import ORDERS, corrupt, mean_masked_count, random_mask
from t2i_jax.training import step
from tests.conftest import ROOT, last_values


def test_random_mask_has_exactly_the_count_of_the_schedule():
    keys = jax.random.split(jax.random.key(0), 4000)
    part = jax.vmap(lambda key: random_mask(key, lambda r: 0 * r + 0.3, 16))(keys)
    assert (part.sum(-1) == 5).all()  # ceil(4.8)
    np.testing.assert_allclose(part.mean(0), 5 / 16, atol=0.03)
    none = jax.vmap(lambda key: random_mask(key, lambda r: 0 * r, 16))(keys[:100])
    assert (none.sum(-1) == 1).all()
    number = jax.vmap(lambda key: random_mask(key, mask_schedule("linear"), 8))(keys).sum(-1)
    np.testing.assert_allclose(np.bincount(number, minlength=9)[1:] / 4000, 1 / 8, atol=0.02)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_mean_count_is_that_of_the_masks(name):
    keys = jax.random.split(jax.random.key(1), 20_000)
    drawn = jax.vmap(lambda key: random_mask(key, mask_schedule(name), 8).sum())(keys)
    np.testing.assert_allclose(mean_masked_count(mask_schedule(name), 8), drawn.mean(), rtol=0.01)
    assert mean_masked_count(mask_schedule("linear"), 8) == pytest.approx(4.5)


@pytest.mark.parametrize(("corruption", "numbers"), [(0.0, {1, 2, 3, 4}), (0.5, {4})])
def test_every_counted_code_has_the_same_weight(tiny_batch, corruption, numbers):
    """Where all codes are as likely, a picture's loss is log 2 for each masked code.

    With corruption it is log 2 for each of the four codes.
    """
    config = _config(f"corruption={corruption}")
    family = load_family(config)
    batch, frozen = tiny_batch(config, 64)
    frozen["first_stage"] = {"codebook": jnp.zeros((2, 48))}
    params, extra = family.init(jax.random.key(0), batch)
    keys = jax.random.split(jax.random.key(1), 64)
    ctx = Context(extra, frozen, None, 0, {**batch, "codes": np.zeros((64, 4), int)}, keys)
    loss, _ = family.losses["model"](params, ctx)
    counts = np.asarray(loss / np.log(2) * mean_masked_count(mask_schedule("cosine"), 4))
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-4)
    assert set(np.round(counts).tolist()) == numbers


def _config(*overrides):
    tiny = (
        "data.resolution=8",
        "image_tokenizer.codes=2",
        "caption_dropout=0.2",
        "sample.steps=2",
        "model.depth=1",
        "corruption=0.0",
        "sample.doubt=0.0",
    )
    tiny += (
        "sample.order=confidence",
        "sample.temperature=1.0",
        "sample.top_p=1.0",
        "sample.guidance=1.5",
    )
    given = last_values((*tiny, *overrides))
    return configs.load(f"{ROOT}/configs/shapes_masked.py:smoke", given)


@pytest.fixture(scope="module")
def toy():
    """A trained model of two captions: word 5 for dark above bright, word 6 for the reverse."""
    config = _config()
    family, length = load_family(config), config.text.length
    codebook = np.stack([np.full(48, -0.5), np.full(48, 0.5)]).astype(np.float32)
    null = {"tokens": np.eye(1, length, dtype=np.int32)[0], "mask": np.arange(length) < 1}
    frozen = jax.tree.map(
        jnp.asarray, {"first_stage": {"codebook": codebook}, "null_text": {"transformer": null}}
    )
    codes = np.array([[0, 0, 1, 1], [1, 1, 0, 0]])[np.arange(32) % 2]
    pictures = np.asarray(
        family.abilities["decode"](Variables({}, {}, frozen), {"codes": jnp.asarray(codes)})
    )
    words = np.zeros((32, length), np.int32)
    words[:, 0], words[:, 1] = 5 + np.arange(32) % 2, 1
    text = {"transformer": {"tokens": words, "mask": np.tile(np.arange(length) < 2, (32, 1))}}
    batch = {"image": pictures, "text": text}
    optimizers = {"model": optax.adam(optax.linear_schedule(1e-2, 0, 300))}
    current = jax.jit(lambda: state.create(family, optimizers, batch, 0))()
    update = jax.jit(step.make_step(family, optimizers, ema_decay=0.5))
    losses = []
    for _ in range(300):
        current, metrics = update(current, frozen, batch)
        losses.append(float(metrics["loss"]))
    return family, Variables(current.params, {}, frozen), batch, losses


@functools.cache
def _compiled(function, static):
    return jax.jit(functools.partial(function, **dict(static)))


def _run(toy, ability, inputs, keys, steps=4, **settings):
    family, variables = toy[:2]
    settings = {**family.settings[ability], **settings, "steps": steps}
    static = tuple((name, settings.pop(name)) for name in family.static if name in settings)
    function = _compiled(family.abilities[ability], static)
    return np.asarray(function(variables, inputs, keys, **settings))


KEYS = jax.random.split(jax.random.key(2), 32)


def test_it_learns_its_captions(toy):
    batch, losses = toy[2:]
    # At first about log 2. Where the caption is dropped (a fifth) and no token is given (a half),
    # log 2 remains.
    assert abs(losses[0] - np.log(2)) < 0.3 and 0.02 < np.mean(losses[-20:]) < 0.2
    np.testing.assert_array_equal(
        _run(toy, "sample", {"text": batch["text"]}, KEYS, temperature=0.0), batch["image"]
    )


def test_without_a_caption_several_steps_are_needed_for_a_consistent_picture(toy):
    """One step draws every token independently, so that one picture in eight is one of the two.

    By surprise two steps are enough: one token is drawn, and the others follow from it.
    """
    null = toy[1].frozen["null_text"]["transformer"]
    text = {"transformer": {k: jnp.broadcast_to(v, (32, *v.shape)) for k, v in null.items()}}
    wholes = []
    for steps, order in ((1, "confidence"), (4, "confidence"), (1, "surprise"), (2, "surprise")):
        drawn = _run(toy, "sample", {"text": text}, KEYS, steps=steps, order=order)
        whole = [
            any((picture == other).all() for other in toy[2]["image"][:2]) for picture in drawn
        ]
        wholes.append(np.mean(whole))
        # Surprise favours the half that the model finds less likely.
        rarer = {"confidence": 0.2, "surprise": 0.1}[order]
        assert rarer < (drawn[:, 0, 0, 0] > 127).mean() < 1 - rarer
    assert max(wholes[0], wholes[2]) < 0.4 and min(wholes[1], wholes[3]) > 0.8


def test_a_picture_does_not_depend_on_its_batch(toy):
    text = toy[2]["text"]
    before = _run(toy, "sample", {"text": text}, KEYS, temperature=30.0)
    # Every caption after the fifth is another.
    other = jax.tree.map(lambda x: np.concatenate([x[:5], x[4:-1]]), text)
    after = _run(
        toy, "sample", {"text": other}, jnp.concatenate([KEYS[:5], KEYS[:-5]]), temperature=30.0
    )
    np.testing.assert_array_equal(after[:5], before[:5])
    assert (before != toy[2]["image"]).any() and (after[5:] != before[5:]).any()


@pytest.mark.parametrize("order", ORDERS)
def test_inpainting_draws_the_mask_and_keeps_the_rest_bit_for_bit(toy, order):
    """The upper left cell is masked, in every third picture another one too, and in one none.

    The drawn part follows from the rest.
    """
    noise = np.random.default_rng(0).integers(-20, 20, (32, 8, 8, 3))
    image = (toy[2]["image"] + noise).astype(np.uint8)  # still the same codes
    mask = np.zeros((32, 8, 8), bool)
    mask[:, :2, :3] = True
    mask[::3, 5, 6], mask[4] = True, False
    hidden = np.where(mask[..., None], 255 - image, image)  # the wrong code, if it were used
    drawn = _run(
        toy, "inpaint", {"image": hidden, "mask": mask}, KEYS, temperature=0.0, order=order
    )
    np.testing.assert_array_equal(drawn[~mask], image[~mask])
    np.testing.assert_array_equal(drawn[mask], toy[2]["image"][mask])
    # Nothing is kept: only the caption decides.
    inputs = {"image": image * 0, "mask": mask | True, "text": toy[2]["text"]}
    drawn = _run(toy, "inpaint", inputs, KEYS, temperature=0.0, order=order)
    np.testing.assert_array_equal(drawn, toy[2]["image"])
    with pytest.raises(
        ValueError,
        match=r"a mask of shape \(32, 8\) does not fit pictures of shape \(32, 8, 8, 3\)",
    ):
        _run(toy, "inpaint", {"image": image, "mask": mask[:, 0]}, KEYS)
    with pytest.raises(ValueError, match=r"pictures of 8 x 4 pixels: this model needs 8 x 8"):
        _run(toy, "inpaint", {"image": image[:, :, :4], "mask": mask[:, :, :4]}, KEYS)


def test_measured_loss_is_less_with_the_right_caption(toy):
    """The codes come from the batch, as from a cache. No caption is dropped when measuring."""
    family, variables, batch, _ = toy
    codes = np.array([[0, 0, 1, 1], [1, 1, 0, 0]])[np.arange(32) % 2]
    context = Context({}, variables.frozen, None, 0, {}, KEYS, train=False)

    @jax.jit
    def loss_of(text):
        return family.losses["model"](
            variables.params, context._replace(batch={"codes": codes, "text": text})
        )

    right, (_, metrics) = loss_of(batch["text"])
    wrong, (_, wrong_metrics) = loss_of(jax.tree.map(lambda x: x[::-1], batch["text"]))
    assert right.shape == (32,) and right.mean() < 0.2 and wrong.mean() > 1
    assert metrics["token_accuracy"].min() == 1 and wrong_metrics["token_accuracy"].mean() < 0.9


def test_bad_settings(toy):
    with pytest.raises(ValueError, match=r"5 steps of parallel decoding: at least 1 and at most 4"):
        load_family(_config("sample.steps=5"))
    with pytest.raises(ValueError, match="5 steps"):
        _run(toy, "sample", {"text": toy[2]["text"]}, KEYS, steps=5)
    with pytest.raises(ValueError, match=r"sample.order is 'raster': .* confidence or surprise"):
        _config("sample.order=raster")
    with pytest.raises(ValueError, match=r"mask_schedule is 'cosinus': it must be cosine"):
        _config("mask_schedule=cosinus")
    config = _config()
    with config.unlocked():
        config.sample.order = "raster"
    with pytest.raises(ValueError, match=r"no order 'raster': there are confidence, surprise"):
        load_family(config)
    with config.unlocked():
        config.mask_schedule = "cosinus"
    with pytest.raises(ValueError, match=r"no mask schedule 'cosinus'"):
        load_family(config)


def test_corrupted_codes_are_codes_of_the_same_picture():
    codes = jnp.arange(64) + 100
    keys = jax.random.split(jax.random.key(0), 500)
    given = jax.vmap(lambda key: corrupt(key, codes, 0.2))(keys)
    assert set(np.unique(given)) <= set(range(100, 164))
    # A wrong code comes from the same place once in 64 times.
    assert np.mean(given != codes) == pytest.approx(0.2 * 63 / 64, abs=0.01)
    np.testing.assert_array_equal(corrupt(keys[0], codes, 0.0), codes)
