"""Captions and pictures of `shapes` are read back, and disagreements are found."""

import json

import numpy as np
import pytest
from scipy import ndimage

from t2i_jax.data import shapes
from t2i_jax.data.render import BACKGROUND, COLOURS, SHAPES, SIZES, draw
from t2i_jax.metrics import alignment
from t2i_jax.metrics.alignment import parse_caption, read_picture, score_picture

SCENES = [shapes.scene("test", i) for i in range(200)]
CAPTIONS = [scene.caption for scene in SCENES]
IMAGES = np.stack([draw(scene.objects, 32) for scene in SCENES])
RED, BLUE = ("small", "red", "cross"), ("large", "blue", "circle")


def exact(images, captions=CAPTIONS):
    return alignment.score(images, captions)["exact"]["value"]


def looks(image):
    return [seen[:3] for seen in read_picture(image)]


def test_captions_are_read():
    assert parse_caption("a small red circle") == ("one", [("small", "red", "circle")], 1, "")
    assert parse_caption("a small red cross and a large blue circle") == ("two", [RED, BLUE], 2, "")
    assert parse_caption("a small red cross left of a large blue circle") == (
        "relation",
        [RED, BLUE],
        2,
        "left of",
    )
    assert parse_caption("three small red crosses") == ("count", [RED] * 3, 3, "")
    assert parse_caption("a trio of little scarlet plus signs") == ("count", [RED] * 3, 3, "")
    paraphrase = "the tiny crimson plus to the left of the big cobalt disc"
    assert parse_caption(paraphrase).relation == "left of"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "a red circle",
        "a small red",
        "a small pink circle",
        "five small red circles",
        "a small red circle and",
        "cat",
    ],
)
def test_what_is_not_in_the_grammar_is_an_error(wrong):
    with pytest.raises(ValueError, match=f"{wrong!r}"):
        parse_caption(wrong)


@pytest.mark.parametrize("split", shapes.SPLITS)
def test_every_scene_is_read_back(split):
    scenes = [shapes.scene(split, i) for i in range(60)]
    assert exact([draw(s.objects, 32) for s in scenes], [s.caption for s in scenes]) == 1


@pytest.mark.parametrize("resolution", [32, 64])
def test_places_are_read_to_a_fraction_of_a_pixel(resolution):
    for scene in (s for s in SCENES[:60] if s.kind != "count"):
        read = {seen[:3]: seen for seen in read_picture(draw(scene.objects, resolution))}
        for true in scene.objects:
            seen = read[true[:3]]
            assert abs(seen.x - true.x / 128) * 32 < 0.2 and abs(seen.y - true.y / 128) * 32 < 0.2


def test_other_captions_are_near_chance():
    assert exact(IMAGES, CAPTIONS[1:] + CAPTIONS[:1]) <= 0.02


def test_noise_blur_and_dimness_keep_nearly_all():
    rng = np.random.default_rng(0)
    noisy = np.clip(np.rint(IMAGES + rng.normal(0, 8, IMAGES.shape)), 0, 255)
    assert exact(noisy.astype(np.uint8)) >= 0.98
    blurred = ndimage.gaussian_filter(IMAGES.astype(float), (0, 0.5, 0.5, 0))
    assert exact(blurred.astype(np.uint8)) >= 0.98
    dim = np.array(BACKGROUND) + 0.85 * (IMAGES - np.array(BACKGROUND, float))
    assert exact(dim.astype(np.uint8)) >= 0.98


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_half_a_shape_is_not_the_shape(size, shape):
    image = draw([(size, "cyan", shape, 64, 64)], 32)
    assert looks(image) == [(size, "cyan", shape)]
    for half in (np.s_[:16], np.s_[16:], np.s_[:, :16], np.s_[:, 16:]):
        erased = image.copy()
        erased[half] = BACKGROUND
        assert (size, "cyan", shape) not in looks(erased)


def test_an_object_of_another_size_is_not_exact():
    one = score_picture(draw([("large", "red", "star", 64, 64)], 32), "a small red star")
    assert one == {
        "count": True,
        "colour": True,
        "shape": True,
        "size": False,
        "relation": None,
        "exact": False,
    }


def test_an_object_too_many_or_too_few_is_not_exact():
    four = [("small", "red", "ring", x, y) for x in (30, 90) for y in (30, 90)]
    caption = "three small red rings"
    assert score_picture(draw(four[:3], 32), caption)["exact"]
    for objects in (four, four[:2]):
        seen = score_picture(draw(objects, 32), caption)
        assert not any(seen[atom] for atom in ("count", "colour", "shape", "size", "exact"))


def test_swapped_colours_keep_the_atoms_and_break_the_binding():
    image = draw([("small", "blue", "cross", 30, 30), ("large", "red", "circle", 90, 90)], 32)
    seen = score_picture(image, "a small red cross and a large blue circle")
    assert seen == {
        "count": True,
        "colour": True,
        "shape": True,
        "size": True,
        "relation": None,
        "exact": False,
    }


@pytest.mark.parametrize("relation", shapes.RELATIONS)
def test_a_relation_is_that_of_the_first_to_the_second(relation):
    offsets = {"above": (0, -30), "below": (0, 30), "left of": (-30, 0), "right of": (30, 0)}
    dx, dy = offsets[relation]
    caption = f"a small red cross {relation} a large blue circle"
    true = score_picture(draw([(*RED, 64 + dx, 64 + dy), (*BLUE, 64 - dx, 64 - dy)], 32), caption)
    assert true["relation"] and true["exact"]
    turned = score_picture(draw([(*RED, 64 - dx, 64 - dy), (*BLUE, 64 + dx, 64 + dy)], 32), caption)
    assert turned["colour"] and not turned["relation"] and not turned["exact"]
    across = score_picture(draw([(*RED, 64 + dy, 64 + dx), (*BLUE, 64 - dy, 64 - dx)], 32), caption)
    assert not across["relation"] and not across["exact"]


def test_blank_pictures_and_garbage_show_nothing():
    rng = np.random.default_rng(0)
    blank = np.full((32, 32, 3), BACKGROUND, np.uint8)
    assert read_picture(blank) == [] and not score_picture(blank, "a small red circle")["exact"]
    for level in (0, 128, 255):
        even = np.full((32, 32, 3), level, np.uint8)
        assert all(seen.shape is None for seen in read_picture(even))
    for _ in range(5):
        garbage = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        assert all(seen.shape is None for seen in read_picture(garbage))


def test_junk_beside_a_good_shape_is_seen_and_a_speck_is_ignored():
    image = draw([("large", "green", "circle", 40, 40)], 32)
    speck, junk, odd = image.copy(), image.copy(), image.copy()
    speck[25, 25:27] = COLOURS["green"]
    junk[24:28, 24:28] = COLOURS["green"]
    odd[24:28, 24:28] = (110, 110, 110)  # no colour of the palette
    caption = "a large green circle"
    assert score_picture(speck, caption)["exact"]
    for bad in (junk, odd):
        seen = score_picture(bad, caption)
        assert not seen["count"] and not seen["exact"]


def test_touching_objects_of_two_colours_are_separated():
    image = draw([("small", "red", "square", 48, 64), ("small", "cyan", "circle", 80, 64)], 32)
    assert sorted(looks(image)) == [("small", "cyan", "circle"), ("small", "red", "square")]


def test_a_shape_in_two_colours_is_not_a_shape():
    image = draw([("large", "blue", "square", 64, 64)], 32)
    image[:, :16] = draw([("large", "yellow", "square", 64, 64)], 32)[:, :16]
    assert all(shape is None for _, _, shape in looks(image))


def test_the_report():
    images = IMAGES.copy()
    images[: len(images) // 2] = BACKGROUND
    report = json.loads(json.dumps(alignment.score(images, CAPTIONS, seed=1)))
    assert report["n"] == 200 and report["exact"]["value"] == 0.5 and report["exact"]["n"] == 200
    low, high = report["exact"]["low"], report["exact"]["high"]
    assert low == pytest.approx(0.5 - 1.96 * 0.5 / 200**0.5, abs=0.015)  # the normal approximation
    assert high == pytest.approx(0.5 + 1.96 * 0.5 / 200**0.5, abs=0.015)
    assert report["atoms"]["relation"]["n"] == 50
    assert {kind["n"] for kind in report["kinds"].values()} == {50}
    assert report == alignment.score(images, CAPTIONS, seed=1)
    for i, caption in enumerate(CAPTIONS):
        if parse_caption(caption).kind == "count":
            images[i] = BACKGROUND
    report = alignment.score(images, CAPTIONS)
    assert report["worst_kind"] == "count" and report["kinds"]["count"]["value"] == 0
    table = alignment.format_report(report)
    assert "worst kind: count" in table and "50.0 %" in table
    with pytest.raises(ValueError):
        alignment.score([], [])
