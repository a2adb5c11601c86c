"""Augmentations: closed forms and invariances, true captions, no dependence on the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from t2i_jax.core.fields import defaults_of
from t2i_jax.core.source import Source
from t2i_jax.data import augmentation, loader, shapes
from t2i_jax.data.render import draw
from t2i_jax.metrics import alignment
from t2i_jax.runs.columns import tokenise
from t2i_jax.text import tokenizer as tokenizers

FULL = {"flip": 0.5, "rotation": 20.0, "scale": 0.2, "crop": 0.1, "colour": 0.5, "noise": 0.1}
NONE = defaults_of(augmentation.FIELDS)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def pictures(count=4, height=12, width=12, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, height, width, 3)).astype(np.float32)


def make_source(names=tuple(FULL), count=8):
    captions = ["a", "b"] * (count // 2)
    images = np.random.default_rng(1).integers(0, 256, (count, 12, 12, 3)).astype(np.uint8)
    return Source(
        captions, lambda index: images[index], "f", variants=dict.fromkeys(names, captions)
    )


def make_augment(source, **strengths):
    return augmentation.make_augment({**NONE, **strengths}, source)


def batch_of(source, count=8):
    return {
        "image": source.read(np.arange(count)),
        "text": {"none": {}},
        "index": np.arange(count, dtype=np.int32),
    }


def test_flip_is_its_own_inverse_and_has_its_probability():
    x = pictures(2000, 2, 3)
    flip = jax.jit(augmentation.flip, static_argnums=2)
    once = flip(x, keys(2000), 0.3)
    changed = (once != x).any((1, 2, 3))
    assert 560 < changed.sum() < 640  # 600, of deviation 20.5
    np.testing.assert_array_equal(once[changed], x[changed][:, :, ::-1])
    np.testing.assert_array_equal(changed, augmentation.is_flipped(keys(2000), 0.3))
    np.testing.assert_array_equal(flip(once, keys(2000), 0.3), x)
    np.testing.assert_array_equal(flip(x, keys(2000), 0.0), x)


def test_shift_by_whole_pixels():
    x = np.arange(12.0).reshape(1, 3, 4, 1)
    border = [[[1, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]]]
    filled = [[[9, 9, 9, 9], [1, 2, 3, 9], [5, 6, 7, 9]]]
    np.testing.assert_array_equal(augmentation.shift(x, np.array([[1, -1]]))[..., 0], border)
    np.testing.assert_array_equal(augmentation.shift(x, np.array([[1, -1]]), 9)[..., 0], filled)


def test_crop_draws_every_shift_up_to_its_fraction_and_none_beyond():
    x = np.broadcast_to(
        np.arange(16.0)[:, None, None] * 100 + np.arange(8.0)[:, None], (400, 16, 8, 1)
    )
    middle = jax.jit(lambda x, k: augmentation.crop(x, k, 1 / 8))(x, keys(400))[:, 8, 4, 0]
    assert set(np.asarray(middle).tolist()) == {
        100.0 * (8 + i) + 4 + j for i in (-2, -1, 0, 1, 2) for j in (-1, 0, 1)
    }


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_rotation_by_90_degrees_is_rot90(quarters):
    x = pictures(3)
    turned = augmentation.resample(x, jnp.full(3, quarters * np.pi / 2), jnp.ones(3))
    np.testing.assert_allclose(turned, np.rot90(x, quarters, (1, 2)), atol=1e-5)


def test_scale_is_linear_interpolation_about_the_centre():
    x = np.broadcast_to(np.arange(9.0)[:, None, None] + 10 * np.arange(9.0)[:, None], (2, 9, 9, 1))
    x = augmentation.resample(x, jnp.zeros(2), jnp.array([2.0, 0.5]))[..., 0]
    rows = {0: 4 + (np.arange(9) - 4) / 2, 1: np.clip(4 + (np.arange(9) - 4) * 2, 0, 8)}
    for i, at in rows.items():
        np.testing.assert_allclose(x[i], at[:, None] + 10 * at, rtol=1e-5, atol=1e-5)


def test_rotations_and_sizes_fill_their_ranges():
    # The slopes of a ramp show its rotation and its size.
    ramp = np.broadcast_to(np.arange(-8.0, 9)[:, None], (500, 17, 17))[..., None]
    change = jax.jit(lambda x, k: augmentation.rotate_and_scale(x, k, 30.0, 0.25))
    x = change(ramp, keys(500))[..., 0]
    down, right = x[:, 9, 8] - x[:, 7, 8], x[:, 8, 9] - x[:, 8, 7]
    angle, zoom = np.degrees(np.arctan2(right, down)), 2 / np.hypot(down, right)
    assert -30.01 < angle.min() < -29 and 29 < angle.max() < 30.01
    assert 0.7999 < zoom.min() < 0.81 and 1.24 < zoom.max() < 1.2501


def test_a_constant_picture_stays_constant_under_geometry():
    @jax.jit
    def geometry(x, keys):
        return augmentation.crop(
            augmentation.rotate_and_scale(augmentation.flip(x, keys, 0.5), keys, 90.0, 0.5),
            keys,
            0.5,
        )

    x = np.full((8, 12, 9, 3), 0.3, np.float32)
    np.testing.assert_allclose(geometry(x, keys(8)), x, atol=1e-6)


def test_colour_is_brightness_then_saturation_then_contrast():
    x, colour = pictures(), jax.jit(augmentation.colour)
    brightness, saturation, contrast = np.asarray(
        jax.vmap(lambda k: jax.random.uniform(k, (3,), minval=-0.6, maxval=0.6))(keys(4))
    ).T[..., None, None, None]
    y = x + brightness / 2
    y = y.mean(-1, keepdims=True) + (1 + saturation) * (y - y.mean(-1, keepdims=True))
    y = y.mean((1, 2, 3), keepdims=True) * -contrast / 2 + (1 + contrast / 2) * y
    np.testing.assert_allclose(colour(x, keys(4), 0.6), y, atol=1e-6)
    grey = x.mean(-1, keepdims=True)
    as_rgb = colour(np.repeat(grey, 3, -1), keys(4), 1.0)
    np.testing.assert_allclose(as_rgb, np.repeat(colour(grey, keys(4), 1.0), 3, -1), atol=1e-6)


def test_noise_has_its_standard_deviation():
    change = jax.jit(augmentation.noise)(np.zeros((4, 64, 64, 3), np.float32), keys(4), 0.2)
    assert abs(change.mean()) < 0.005 and abs(change.std() - 0.2) < 0.003
    assert abs(np.corrcoef(np.asarray(change).reshape(4, -1))[0, 1]) < 0.05


def test_a_result_does_not_depend_on_other_examples_or_on_devices():
    source = make_source(count=16)
    augment = jax.jit(make_augment(source, **FULL)[0])
    batch, own = batch_of(source, 16), keys(16)
    whole = augment(batch, own)["image"]
    assert whole.dtype == np.uint8 and (whole != batch["image"]).any((1, 2, 3)).all()
    moved = np.roll(np.arange(16), 5)  # other places in the batch, and 6 have other keys
    others = jnp.where(np.arange(16) < 6, keys(16, seed=1), own[moved])
    again = augment({**batch, "image": batch["image"][moved]}, others)["image"]
    np.testing.assert_array_equal(again[6:], whole[moved][6:])
    assert (again[:6] != whole[moved][:6]).any((1, 2, 3)).all()
    spread = jax.device_put(
        (batch, own), NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    )
    compiled = augment.lower(*spread).compile()
    np.testing.assert_array_equal(compiled(*spread)["image"], whole)
    assert not [
        word for word in ("all-gather", "all-reduce", "all-to-all") if word in compiled.as_text()
    ]


def test_without_augmentation_no_bit_changes():
    source = make_source()
    assert make_augment(source) == (None, {})
    assert augmentation.make_augment(ConfigDict(NONE), source) == (None, {})
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(8, 0)
    augment, _ = make_augment(source, flip=1e-9)
    np.testing.assert_array_equal(
        augment({**batch_of(source), "image": every}, keys(8))["image"], every
    )


@pytest.mark.parametrize(
    ("names", "strengths", "message"),
    [
        (
            ("flip", "noise"),
            {"rotation": 5.0},
            r"augment\.rotation is refused.* it declares flip, noise\.",
        ),
        ((), {"flip": 0.5}, r"augment\.flip is refused.* it declares none"),
        (("flip",), {"flip": 1.5}, r"augment\.flip is 1\.5: it can be 0, for none, to 1"),
        (("noise",), {"noise": -0.1}, r"augment\.noise is -0\.1"),
    ],
)
def test_an_augmentation_that_is_not_allowed_is_refused(names, strengths, message):
    with pytest.raises(ValueError, match=message):
        make_augment(make_source(names), **strengths)


def test_only_a_flip_may_change_captions():
    source = make_source()
    with pytest.raises(ValueError, match="rotation cannot change captions"):
        make_augment(source._replace(variants={"rotation": source.captions[::-1]}), rotation=5.0)


def test_each_picture_keeps_a_caption_that_is_true_of_it():
    scenes = [shapes.scene("train", 4 * i + 1) for i in range(20)]  # all relations
    captions = [scene.caption for scene in scenes]
    images = np.stack([draw(scene.objects, 32) for scene in scenes])
    variants = {"flip": [shapes.mirrored(caption) for caption in captions], "noise": captions}
    source = Source(captions, lambda index: images[index], "f", variants=variants)
    augment, changing = make_augment(source, flip=0.5, noise=0.02)
    assert changing == {"flip": variants["flip"]}
    tokenizer = tokenizers.train(captions, 300)
    config = ConfigDict({"encoder": "transformer", "length": 64, "vocab_size": 300})
    texts, num_cut = tokenise(source, tokenizer, config, changing)
    batch = jax.jit(augment)(loader.make_batch(source, texts, np.arange(20)), keys(20))
    assert set(batch) == {"image", "text", "index"} and num_cut == 0
    decoded = tokenizers.decode(tokenizer, batch["text"]["transformer"]["tokens"])
    assert alignment.score(np.asarray(batch["image"]), decoded)["exact"]["value"] == 1.0
    flipped = np.asarray(batch["image"][:, :, ::-1].astype(int) - images).std((1, 2, 3)) < 5
    assert 4 < flipped.sum() < 16
    expected = [variants["flip" if mirror else "noise"][i] for i, mirror in enumerate(flipped)]
    assert decoded == expected
    lengths = [len(encoding) for encoding in tokenizer.encode_batch(decoded)]
    np.testing.assert_array_equal(batch["text"]["transformer"]["mask"].sum(1), lengths)
