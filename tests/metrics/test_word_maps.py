"""Scores of word maps: closed forms, and thresholds that are chosen on other pictures."""

import numpy as np
import pytest

from t2i_jax.data import shapes
from t2i_jax.data.render import draw, mask
from t2i_jax.metrics import word_maps


def square(size, side=8):
    """A mask of the first `size` x `size` pixels."""
    found = np.zeros((side, side), bool)
    found[:size, :size] = True
    return found


def test_iou():
    found = np.stack([square(4), square(4), square(0), square(0)])
    true = np.stack([square(4), square(2), square(3), square(0)])
    np.testing.assert_allclose(word_maps.iou(found, true), [1, 4 / 16, 0, 1])
    shifted = np.roll(square(4), 2, axis=1)
    assert word_maps.iou(square(4), shifted) == pytest.approx(8 / 24)


def test_maps_are_enlarged_linearly():
    ramp = np.tile([0.0, 1.0, 2.0, 3.0], (1, 4, 1))
    found = word_maps.enlarged(ramp, 8)
    assert found.shape == (1, 8, 8)
    np.testing.assert_allclose(found[0, 3], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    np.testing.assert_allclose(word_maps.enlarged(np.full((2, 3, 4, 4), 0.7), 16), 0.7)


def test_maps_are_stretched_each_for_itself():
    maps = np.stack([np.array([[1.0, 3.0], [2.0, 1.0]]), np.full((2, 2), 5.0)])
    np.testing.assert_allclose(word_maps.stretched(maps), [[[0, 1], [0.5, 0]], [[0, 0], [0, 0]]])


def stepped(inner, outer, level):
    """A map of 1 in `inner`, of `level` in the rest of `outer`, and of 0 elsewhere."""
    return np.where(inner, 1.0, np.where(outer, level, 0.0))


def test_thresholds_are_chosen_on_the_other_pictures():
    """Where the chosen-on pictures want a low threshold, the others are scored with a low one."""
    low = (stepped(square(2), square(6), 0.4)[None], square(6)[None])
    high = (stepped(square(2), square(6), 0.4)[None], square(2)[None])
    assert word_maps.best_threshold(*low) <= 0.4 < word_maps.best_threshold(*high)
    scores = word_maps.score({"noun": high}, {"noun": low})
    assert scores["noun"]["iou"]["value"] == pytest.approx(4 / 36)
    assert scores["noun"]["threshold"] <= 0.4
    assert word_maps.score({"noun": high}, {"noun": high})["noun"]["iou"]["value"] == 1.0


@pytest.mark.parametrize("index", range(12))
def test_objects_are_where_the_scene_has_them(index):
    scene = shapes.scene("test", index)
    image = draw(scene.objects, 32)
    named = word_maps.objects_of(image, scene.caption)
    groups = [scene.objects] if scene.kind == "count" else [[each] for each in scene.objects]
    assert len(named) == len(groups)
    for each, objects in zip(named, groups, strict=True):
        np.testing.assert_array_equal(each.mask, mask(objects, 32))
        words = [scene.caption.split()[i] for i in each.words]
        assert words[:2] == list(objects[0][:2])
        assert words[2] in (objects[0].shape, shapes.plural(objects[0].shape))


def test_only_pictures_that_show_their_caption_have_known_masks():
    scene = shapes.scene("test", 0)
    image = draw(scene.objects, 32)
    assert word_maps.objects_of(np.zeros_like(image), scene.caption) == []
    maps = [np.ones((4, 4, 4))]
    with pytest.raises(ValueError, match="no picture shows its caption exactly"):
        word_maps.named_objects(maps, np.zeros_like(image)[None], [scene.caption])
    for index in range(4):
        with pytest.raises(ValueError, match="a paraphrase"):
            word_maps.objects_of(image, shapes.scene("paraphrase", index).caption)


def test_maps_of_an_object_are_those_of_its_words():
    """The noun's own map, the mean of the three words', and the mask at the size of a map."""
    scene = next(s for s in map(lambda i: shapes.scene("test", i), range(9)) if s.kind == "two")
    image, words = draw(scene.objects, 32), len(scene.caption.split())
    maps = np.arange(words)[:, None, None] * np.ones((words, 4, 4))
    found = word_maps.named_objects([maps], image[None], [scene.caption])
    pairs = word_maps.maps_and_masks(found)
    np.testing.assert_allclose(pairs["noun"][0][:, 0, 0], [3, words - 1])
    np.testing.assert_allclose(pairs["phrase"][0][:, 0, 0], [2, words - 2])
    shares, masks = pairs["coarse_mask"]
    np.testing.assert_allclose(shares.mean((1, 2)), masks.mean((1, 2)))
    assert shares.shape == (2, 4, 4)


def test_two_objects_are_told_apart_by_the_map_that_is_greater_in_one():
    """Maps that agree with their object: always; with the other: never; with both: never."""
    other = np.flip(square(3))
    own, swapped, both = (np.stack([x] * 3).astype(float) for x in (square(3), other, square(8)))
    two, one = (word_maps.NamedObject((1, 2, 3), square(3), each) for each in (other, None))
    found = [(own, two), (swapped, two), (both, two), (own, two)]
    assert word_maps.told_apart(found)["value"] == 0.5
    assert word_maps.told_apart(found[:1]) == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 1}
    assert word_maps.told_apart([(own, one)]) is None
