from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from t2i_jax.data import shapes, source
from t2i_jax.data.render import SIZES, draw
from t2i_jax.metrics import alignment

SCENES = {split: [shapes.scene(split, i) for i in range(400)] for split in shapes.SPLITS}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    return SimpleNamespace(name="shapes", resolution=32, scenes=12)


@pytest.mark.parametrize("split", shapes.SPLITS)
def test_things_are_inside_and_apart(split):
    for scene in SCENES[split]:
        half = [SIZES[t.size] * 64 for t in scene.things]
        for i, (a, r) in enumerate(zip(scene.things, half, strict=True)):
            assert r <= min(a.x, a.y) and max(a.x, a.y) <= 128 - r
            for b, q in zip(scene.things[:i], half, strict=False):
                assert max(abs(a.x - b.x), abs(a.y - b.y)) - r - q >= 8  # 2 px at 32 px


@pytest.mark.parametrize("split", shapes.SPLITS)
def test_the_kinds_are_a_quarter_each_and_hold_what_they_say(split):
    assert Counter(s.kind for s in SCENES[split]) == dict.fromkeys(shapes.KINDS, 100)
    for scene in SCENES[split]:
        looks = {t[:3] for t in scene.things}
        if scene.kind == "count":
            assert 2 <= len(scene.things) <= 4 and len(looks) == 1 and scene.things[0].size == "small"
        else:
            assert len(scene.things) == len(looks) == (1 if scene.kind == "one" else 2)


def test_relations_hold():
    for scene in (s for split in SCENES.values() for s in split if s.kind == "relation"):
        a, b = scene.things
        right, down = (a.x - b.x) / 128, (a.y - b.y) / 128
        along, across = {
            "above": (-down, right),
            "below": (down, right),
            "left of": (-right, down),
            "right of": (right, down),
        }[scene.relation]
        assert along >= 0.3 and abs(across) < 0.15


def test_attributes_are_uniform():
    scenes = [shapes.scene("train", 4 * i) for i in range(2100)]  # "one": 84 combinations, 25 of each
    found = Counter(s.things[0][:3] for s in scenes)
    assert len(found) == 84
    assert 50 < sum((n - 25) ** 2 / 25 for n in found.values()) < 130  # chi squared of 83 degrees: 83 +- 13
    numbers = Counter(len(shapes.scene("train", 4 * i + 2).things) for i in range(600))
    assert set(numbers) == {2, 3, 4} and min(numbers.values()) > 160


def test_held_out_pairs_are_in_every_compositional_scene_and_nowhere_else():
    for split, scenes in SCENES.items():
        held_out = [any(t[1:3] in shapes.HELD_OUT for t in s.things) for s in scenes]
        assert all(held_out) if split == "compositional" else not any(held_out)


def test_no_two_splits_share_a_scene():
    # the owner of a scene is its only split, and does not depend on the order in which its things are named
    for split, scenes in SCENES.items():
        if split != "compositional":
            assert {shapes._owner(s.things[::-1]) for s in scenes} == {split}
    seen = {split: {frozenset(s.things) for s in scenes} for split, scenes in SCENES.items()}
    assert not seen["train"] & (seen["test"] | seen["validation"]) and len(seen["test"]) > 390


def test_a_scene_is_a_pure_function_of_split_and_index():
    assert shapes.scene("train", 7) == SCENES["train"][7]
    assert shapes.scene("train", 7).things != shapes.scene("train", 11).things
    assert shapes.scene("train", 8).things != shapes.scene("validation", 8).things


def test_captions():
    ring, star = shapes.Thing("small", "white", "ring", 1, 2), shapes.Thing("large", "blue", "star", 3, 4)
    cross = shapes.Thing("small", "green", "cross", 1, 2)
    assert shapes.caption("one", [ring]) == "a small white ring"
    assert shapes.caption("relation", [star, ring], "left of") == "a large blue star left of a small white ring"
    assert shapes.caption("two", [star, ring]) == "a large blue star and a small white ring"
    assert shapes.caption("count", [cross] * 3) == "three small green crosses"


def test_a_paraphrase_shares_no_word_of_content_and_means_the_same():
    known = {word for split in ("train", "test") for s in SCENES[split] for word in s.caption.split()}
    for scene in SCENES["paraphrase"]:
        assert set(scene.caption.split()) & known <= {"a", "and", "of"}
        assert shapes.plain(scene.caption) == shapes.caption(scene.kind, scene.things, scene.relation)
    assert set(shapes.SYNONYMS) == {*SIZES, *shapes.COLOURS, *shapes.SHAPES, *shapes.RELATIONS, *shapes.NUMBERS}
    others = [other for words in shapes.SYNONYMS.values() for other in words]
    assert len(others) == len(set(others))
    assert shapes.plain("the tiny crimson disc to the left of the huge ivory box") == (
        "a small red circle left of a large white square"
    )


@pytest.mark.parametrize("side", [32, 48])
def test_a_mirrored_picture_is_that_of_the_mirrored_scene(side):
    for scene in SCENES["train"][:200]:
        mirrored = [thing._replace(x=128 - thing.x) for thing in scene.things]
        np.testing.assert_array_equal(draw(scene.things, side)[:, ::-1], draw(mirrored, side))


@pytest.mark.parametrize("split", ["train", "paraphrase"])
def test_a_mirrored_caption_is_true_of_the_mirrored_picture_and_only_of_it(split):
    sideways = [s for s in SCENES[split] if s.relation in ("left of", "right of")]
    others = [s for s in SCENES[split] if s.relation not in ("left of", "right of")]
    assert len(sideways) > 30 and all(shapes.mirrored(s.caption) == s.caption for s in others)
    for scene in sideways:
        said = shapes.mirrored(scene.caption)
        other = {"left of": "right of", "right of": "left of"}[scene.relation]
        assert shapes.plain(said) == shapes.caption("relation", scene.things, other)
        assert shapes.mirrored(said) == scene.caption
    for scene in [*sideways[:6], *others[:6]]:
        image, said = draw(scene.things, 32)[:, ::-1], shapes.mirrored(scene.caption)
        assert alignment.score_picture(image, said)["exact"]
        assert alignment.score_picture(image, scene.caption)["exact"] == (said == scene.caption)


def test_the_source_gives_the_scenes_in_order(config, capfd):
    made = {split: source.load(config, split) for split in shapes.SPLITS}
    printed = capfd.readouterr()
    assert printed.out.startswith("preparing shapes, 32 px: 60 scenes (") and printed.out.count("\n") == 1
    assert not printed.err
    for split, data in made.items():
        scenes = SCENES[split][:12]
        assert list(data.captions) == [s.caption for s in scenes]
        assert data.variants == {"flip": [shapes.mirrored(s.caption) for s in scenes], "noise": data.captions}
        places = np.array([7, 0, 11, 7])
        images = data.read(places)
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, [draw(scenes[i].things, 32) for i in places])
    assert len({data.fingerprint for data in made.values()}) == len(made)
    again = source.load(config, "test")
    assert again.fingerprint == made["test"].fingerprint and not capfd.readouterr().out


def test_resolutions_and_numbers_are_kept_apart(config):
    first = source.load(config, "test")
    other = source.load(SimpleNamespace(name="shapes", resolution=48, scenes=5), "test")
    assert len(other.captions) == 5 and other.read([4]).shape == (1, 48, 48, 3)
    assert other.fingerprint != first.fingerprint and len(source.load(config, "test").captions) == 12


def test_the_record_holds_the_scene(config):
    from t2i_jax.data import shapes_builder

    source.load(config, "train")
    records = shapes_builder.builder(32, 12).as_data_source("train")
    for record, scene in zip(records, SCENES["train"], strict=False):
        rows = [row for row in record["things"].tolist() if row[0] >= 0]
        assert shapes.KINDS[record["kind"]] == scene.kind
        words = [(list(SIZES)[s], list(shapes.COLOURS)[c], list(shapes.SHAPES)[k], x, y) for s, c, k, x, y in rows]
        assert words == [tuple(t) for t in scene.things]


def test_an_interrupted_prepare_leaves_nothing_that_is_taken_as_whole(config, monkeypatch):
    from t2i_jax.data import shapes_builder

    def fail(things, resolution):
        if fail.left == 0:
            raise KeyboardInterrupt
        fail.left -= 1
        return draw(things, resolution)

    fail.left = 30  # in the third of five splits
    monkeypatch.setattr(shapes_builder, "draw", fail)
    with pytest.raises(KeyboardInterrupt):
        source.load(config, "train")
    assert not list(source.data_dir().rglob("*.array_record*"))
    monkeypatch.setattr(shapes_builder, "draw", draw)
    assert len(source.load(config, "paraphrase").captions) == 12


def test_an_unknown_split_is_an_error(config):
    with pytest.raises(ValueError, match="compositional"):
        source.load(config, "dev")
