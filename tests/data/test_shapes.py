"""Scenes by their rules, captions by their grammar, and the prepared data by its scenes."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from t2i_jax.core.files import data_dir
from t2i_jax.data import shapes
from t2i_jax.data.load import load_source
from t2i_jax.data.render import SIZES, draw
from t2i_jax.metrics import alignment

SCENES = {split: [shapes.scene(split, i) for i in range(400)] for split in shapes.SPLITS}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    return SimpleNamespace(name="shapes", resolution=32, scenes=12)


@pytest.mark.parametrize("split", shapes.SPLITS)
def test_objects_are_inside_and_apart(split):
    for scene in SCENES[split]:
        half = [SIZES[t.size] * 64 for t in scene.objects]
        for i, (a, r) in enumerate(zip(scene.objects, half, strict=True)):
            assert r <= min(a.x, a.y) and max(a.x, a.y) <= 128 - r
            for b, q in zip(scene.objects[:i], half, strict=False):
                assert max(abs(a.x - b.x), abs(a.y - b.y)) - r - q >= 8  # 2 px at 32 px


@pytest.mark.parametrize("split", shapes.SPLITS)
def test_each_kind_is_a_quarter_and_its_scenes_are_of_that_kind(split):
    assert Counter(s.kind for s in SCENES[split]) == dict.fromkeys(shapes.KINDS, 100)
    for scene in SCENES[split]:
        looks = {t[:3] for t in scene.objects}
        if scene.kind == "count":
            assert (
                2 <= len(scene.objects) <= 4
                and len(looks) == 1
                and scene.objects[0].size == "small"
            )
        else:
            assert len(scene.objects) == len(looks) == (1 if scene.kind == "one" else 2)


def test_relations_hold():
    for scene in (s for split in SCENES.values() for s in split if s.kind == "relation"):
        a, b = scene.objects
        right, down = (a.x - b.x) / 128, (a.y - b.y) / 128
        along, across = {
            "above": (-down, right),
            "below": (down, right),
            "left of": (-right, down),
            "right of": (right, down),
        }[scene.relation]
        assert along >= 0.3 and abs(across) < 0.15


def test_attributes_are_uniform():
    # "one": 84 combinations, 25 of each.
    scenes = [shapes.scene("train", 4 * i) for i in range(2100)]
    found = Counter(s.objects[0][:3] for s in scenes)
    assert len(found) == 84
    # Chi squared of 83 degrees of freedom: 83 +- 13.
    assert 50 < sum((n - 25) ** 2 / 25 for n in found.values()) < 130
    numbers = Counter(len(shapes.scene("train", 4 * i + 2).objects) for i in range(600))
    assert set(numbers) == {2, 3, 4} and min(numbers.values()) > 160


def test_held_out_pairs_are_in_every_compositional_scene_and_nowhere_else():
    for split, scenes in SCENES.items():
        held_out = [any(t[1:3] in shapes.HELD_OUT_PAIRS for t in s.objects) for s in scenes]
        assert all(held_out) if split == "compositional" else not any(held_out)


def test_no_two_splits_share_a_scene():
    # The owner of a scene is its only split. It does not depend on the order of the objects.
    for split, scenes in SCENES.items():
        if split != "compositional":
            assert {shapes._owner(s.objects[::-1]) for s in scenes} == {split}
    seen = {split: {frozenset(s.objects) for s in scenes} for split, scenes in SCENES.items()}
    assert not seen["train"] & (seen["test"] | seen["validation"]) and len(seen["test"]) > 390


def test_a_scene_is_a_pure_function_of_split_and_index():
    assert shapes.scene("train", 7) == SCENES["train"][7]
    assert shapes.scene("train", 7).objects != shapes.scene("train", 11).objects
    assert shapes.scene("train", 8).objects != shapes.scene("validation", 8).objects


def test_captions():
    ring, star = (
        shapes.Object("small", "white", "ring", 1, 2),
        shapes.Object("large", "blue", "star", 3, 4),
    )
    cross = shapes.Object("small", "green", "cross", 1, 2)
    assert shapes.caption("one", [ring]) == "a small white ring"
    assert (
        shapes.caption("relation", [star, ring], "left of")
        == "a large blue star left of a small white ring"
    )
    assert shapes.caption("two", [star, ring]) == "a large blue star and a small white ring"
    assert shapes.caption("count", [cross] * 3) == "three small green crosses"


def test_a_paraphrase_shares_no_word_of_content_and_means_the_same():
    known = {
        word for split in ("train", "test") for s in SCENES[split] for word in s.caption.split()
    }
    for scene in SCENES["paraphrase"]:
        assert set(scene.caption.split()) & known <= {"a", "and", "of"}
        assert shapes.undo_paraphrase(scene.caption) == shapes.caption(
            scene.kind, scene.objects, scene.relation
        )
    assert set(shapes.SYNONYMS) == {
        *SIZES,
        *shapes.COLOURS,
        *shapes.SHAPES,
        *shapes.RELATIONS,
        *shapes.NUMBERS,
    }
    others = [other for words in shapes.SYNONYMS.values() for other in words]
    assert len(others) == len(set(others))
    assert shapes.undo_paraphrase("the tiny crimson disc to the left of the huge ivory box") == (
        "a small red circle left of a large white square"
    )


@pytest.mark.parametrize("side", [32, 48])
def test_a_mirrored_picture_is_the_picture_of_the_mirrored_scene(side):
    for scene in SCENES["train"][:200]:
        mirrored = [each._replace(x=128 - each.x) for each in scene.objects]
        np.testing.assert_array_equal(draw(scene.objects, side)[:, ::-1], draw(mirrored, side))


@pytest.mark.parametrize("split", ["train", "paraphrase"])
def test_a_mirrored_caption_is_true_of_the_mirrored_picture_and_only_of_it(split):
    sideways = [s for s in SCENES[split] if s.relation in ("left of", "right of")]
    others = [s for s in SCENES[split] if s.relation not in ("left of", "right of")]
    assert len(sideways) > 30 and all(shapes.mirrored(s.caption) == s.caption for s in others)
    for scene in sideways:
        mirrored = shapes.mirrored(scene.caption)
        other = {"left of": "right of", "right of": "left of"}[scene.relation]
        assert shapes.undo_paraphrase(mirrored) == shapes.caption("relation", scene.objects, other)
        assert shapes.mirrored(mirrored) == scene.caption
    for scene in [*sideways[:6], *others[:6]]:
        image, mirrored = draw(scene.objects, 32)[:, ::-1], shapes.mirrored(scene.caption)
        assert alignment.score_picture(image, mirrored)["exact"]
        unchanged = mirrored == scene.caption
        assert alignment.score_picture(image, scene.caption)["exact"] == unchanged


def test_the_source_gives_the_scenes_in_order(config, capfd):
    sources = {split: load_source(config, split) for split in shapes.SPLITS}
    printed = capfd.readouterr()
    assert (
        printed.out.startswith("preparing shapes, 32 px: 60 scenes (")
        and printed.out.count("\n") == 1
    )
    assert not printed.err
    for split, data in sources.items():
        scenes = SCENES[split][:12]
        assert list(data.captions) == [s.caption for s in scenes]
        assert data.variants == {
            "flip": [shapes.mirrored(s.caption) for s in scenes],
            "noise": data.captions,
        }
        places = np.array([7, 0, 11, 7])
        images = data.read(places)
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, [draw(scenes[i].objects, 32) for i in places])
    assert len({data.fingerprint for data in sources.values()}) == len(sources)
    again = load_source(config, "test")
    assert again.fingerprint == sources["test"].fingerprint and not capfd.readouterr().out


def test_each_resolution_and_number_of_scenes_has_data_of_its_own(config):
    first = load_source(config, "test")
    other = load_source(SimpleNamespace(name="shapes", resolution=48, scenes=5), "test")
    assert len(other.captions) == 5 and other.read([4]).shape == (1, 48, 48, 3)
    assert (
        other.fingerprint != first.fingerprint and len(load_source(config, "test").captions) == 12
    )


def test_the_record_holds_the_scene(config):
    from t2i_jax.data import shapes_builder

    load_source(config, "train")
    records = shapes_builder.builder(32, 12).as_data_source("train")
    for record, scene in zip(records, SCENES["train"], strict=False):
        rows = [row for row in record["things"].tolist() if row[0] >= 0]
        assert shapes.KINDS[record["kind"]] == scene.kind
        words = [
            (list(SIZES)[s], list(shapes.COLOURS)[c], list(shapes.SHAPES)[k], x, y)
            for s, c, k, x, y in rows
        ]
        assert words == [tuple(t) for t in scene.objects]


def test_an_interrupted_preparation_leaves_nothing_that_looks_complete(config, monkeypatch):
    from t2i_jax.data import shapes_builder

    def fail(objects, resolution):
        if fail.left == 0:
            raise KeyboardInterrupt
        fail.left -= 1
        return draw(objects, resolution)

    fail.left = 30  # in the third of five splits
    monkeypatch.setattr(shapes_builder, "draw", fail)
    with pytest.raises(KeyboardInterrupt):
        load_source(config, "train")
    assert not list(data_dir().rglob("*.array_record*"))
    monkeypatch.setattr(shapes_builder, "draw", draw)
    assert len(load_source(config, "paraphrase").captions) == 12


def test_an_unknown_split_is_an_error(config):
    with pytest.raises(ValueError, match="compositional"):
        load_source(config, "dev")
