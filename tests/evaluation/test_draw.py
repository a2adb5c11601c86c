"""What is drawn, reconstructed and shown of a model."""

import numpy as np
import pytest
from PIL import Image

from t2i_jax.evaluation.draw import for_display, make_pictures, picture_titles, reconstruct
from tests.evaluation.fakes import Captioner, Enlarger, Painter, Translator, TruePipeline


@pytest.fixture
def examples(smoke):
    """A config, and eleven captions with their pictures: not a multiple of the batch."""
    config = smoke("shapes")
    source = TruePipeline(config).pictures
    return config, list(source.captions[:11]), source.read(np.arange(11))


def test_reconstructions_do_not_depend_on_the_batch(examples):
    config, captions, true = examples
    again = reconstruct(Painter(config), captions, true)
    np.testing.assert_array_equal(again, true // 2 * 2)


def test_drawn_pictures_are_shown_with_their_captions(examples, smoke):
    config, captions, true = examples
    pipe = TruePipeline(config)
    images = make_pictures(pipe, captions, true, seed=0)
    np.testing.assert_array_equal(images, true)
    assert for_display(pipe, captions, true, images)[1] == captions
    unconditional = smoke("shapes", "text.encoder=none")
    assert picture_titles(unconditional, captions) == ["(unconditional)"] * 11


def test_reconstructions_are_shown_beside_the_true_pictures(examples):
    config, captions, true = examples
    pipe = Painter(config)
    images = make_pictures(pipe, captions, true, seed=0)
    shown, titles = for_display(pipe, captions, true, images)
    np.testing.assert_array_equal(shown, np.concatenate([true, true // 2 * 2], axis=2))
    assert titles == captions


def test_given_captions_are_shown_beneath_the_true_pictures(examples):
    config, captions, true = examples
    pipe = Captioner(config)
    images = make_pictures(pipe, captions, true, seed=0)
    assert len(images) == 0
    shown, titles = for_display(pipe, captions, true, images)
    np.testing.assert_array_equal(shown, true)
    assert titles == ["a large red circle and more", *captions[1:]]


def test_enlarged_pictures_are_shown_between_bicubic_and_the_true_ones(examples):
    config, captions, true = examples
    pipe = Enlarger(config)
    images = make_pictures(pipe, captions, true, seed=0)
    small = images[:, ::2, ::2]
    np.testing.assert_array_equal(images, small.repeat(2, 1).repeat(2, 2))
    bicubic = Image.Resampling.BICUBIC
    for a, b in zip(small, true, strict=True):
        by_pillow = np.asarray(Image.fromarray(b).resize((16, 16), bicubic))
        assert np.abs(a.astype(int) - by_pillow).max() <= 1
    shown, titles = for_display(pipe, captions, true, images)
    np.testing.assert_array_equal(shown[:, :, 32:], np.concatenate([images, true], axis=2))
    channels = small.transpose(0, 3, 1, 2).astype(np.float32)  # Pillow rounds uint8 twice
    plain = [
        [Image.fromarray(x).resize((32, 32), bicubic) for x in picture] for picture in channels
    ]
    plain = np.array([[np.asarray(x) for x in picture] for picture in plain]).transpose(0, 2, 3, 1)
    assert np.abs(shown[:, :, :32] - plain.clip(0, 255)).max() <= 1
    assert titles == captions


def test_translated_pictures_are_shown_between_the_true_ones_and_the_way_back(examples):
    config, captions, true = examples
    pipe = Translator(config)
    images = make_pictures(pipe, captions, true, seed=0)
    np.testing.assert_array_equal(images, true + np.uint8(40))
    shown, titles = for_display(pipe, captions, true, images)
    np.testing.assert_array_equal(shown, np.concatenate([true, images, true], axis=2))
    assert titles == captions
