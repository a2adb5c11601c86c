"""GenEval's tasks on pictures that are drawn here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_jax.data import shapes
from t2i_jax.data.render import BACKGROUND, draw
from t2i_jax.metrics import geneval
from t2i_jax.metrics.alignment import SeenObject, judge, parse_caption, read_picture

SCENES = [shapes.scene("test", i) for i in range(40)]
CAPTIONS = [scene.caption for scene in SCENES]
IMAGES = [draw(scene.objects, 32) for scene in SCENES]

ONE = ("small", "red", "circle", 32, 32)
FOUR = [("small", "cyan", "ring", x, y) for x in (30, 98) for y in (30, 98)]


def holds(objects, caption):
    return geneval.judge(read_picture(draw(objects, 32)), parse_caption(caption))


def test_true_pictures_hold_all_tasks_and_blank_ones_none():
    report = geneval.score(IMAGES, CAPTIONS)
    assert list(report["tasks"]) == list(geneval.TASKS) and len(geneval.TASKS) == 6
    assert {name: task["n"] for name, task in report["tasks"].items()} == {
        **{"single_object": 10, "colours": 10, "counting": 10, "position": 10},
        **{"two_objects": 20, "attribute_binding": 20},
    }
    assert all(
        number["value"] == number["low"] == number["high"] == 1
        for number in report["tasks"].values()
    )
    assert report["overall"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 40}
    blank = geneval.score([np.full((32, 32, 3), BACKGROUND, np.uint8)] * 40, CAPTIONS)
    assert blank["overall"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 40}


PLACES = st.tuples(st.sampled_from([0.2, 0.35, 0.5, 0.8]), st.sampled_from([0.2, 0.35, 0.5, 0.8]))
LOOKS = [
    ("small", "red", "star"),
    ("large", "red", "star"),
    ("small", "blue", "star"),
    ("small", "blue", "ring"),
]


@settings(deadline=None)
@given(
    st.integers(0, 7),
    st.lists(st.sampled_from(LOOKS), min_size=2, max_size=2, unique=True),
    st.data(),
)
def test_what_is_exact_holds_every_task(kind, words, data):
    """Nothing is stricter than the exact score, which implies all tasks for any picture."""
    relations = [*shapes.RELATIONS, "", "", "", ""]
    caption = shapes.caption("relation" if kind < 4 else "two", words, relations[kind])
    more = st.lists(st.sampled_from(LOOKS), max_size=1)
    shown = data.draw(st.permutations(words)) + data.draw(more)
    seen = [SeenObject(*look, *data.draw(PLACES)) for look in shown]
    asked = parse_caption(caption)
    tasks = geneval.judge(seen, asked)
    position = {"position"} if kind < 4 else set()
    assert set(tasks) == {"two_objects", "attribute_binding"} | position
    assert all(tasks.values()) or not judge(seen, asked)["exact"]
    assert not tasks["attribute_binding"] or tasks["two_objects"]


@pytest.mark.parametrize(
    ("objects", "caption", "expected"),
    [
        # single object and its colour: size and other objects do not matter
        ([ONE], "a large red circle", {"single_object": True, "colours": True}),
        ([ONE], "a small blue circle", {"single_object": True, "colours": False}),
        ([ONE], "a small red square", {"single_object": False, "colours": False}),
        ([ONE, *FOUR[2:]], "a small red circle", {"single_object": True, "colours": True}),
        # both are there, but not on one object
        ([ONE, *FOUR[2:]], "a small cyan circle", {"single_object": True, "colours": False}),
        # counting: exactly this number of the shape, in any colour
        (FOUR, "four small cyan rings", {"counting": True}),
        (FOUR, "four small red rings", {"counting": True}),
        (FOUR, "three small cyan rings", {"counting": False}),
        (FOUR[1:], "four small cyan rings", {"counting": False}),
        ([ONE, *FOUR[2:]], "two small cyan rings", {"counting": True}),
        # two objects and binding
        (
            [ONE, FOUR[3]],
            "a small red circle and a small cyan ring",
            {"two_objects": True, "attribute_binding": True},
        ),
        (
            [ONE, FOUR[3]],
            "a small cyan circle and a small red ring",
            {"two_objects": True, "attribute_binding": False},
        ),
        (
            [ONE],
            "a small red circle and a large red circle",
            {"two_objects": False, "attribute_binding": False},
        ),
    ],
)
def test_tasks_by_hand(objects, caption, expected):
    assert holds(objects, caption) == expected


@pytest.mark.parametrize("relation", shapes.RELATIONS)
def test_position(relation):
    axis, sign = shapes.RELATIONS[relation]
    away = np.eye(2, dtype=int)[axis] * sign  # (x, y) of the first object, from the second one
    first, second = 64 + 32 * away, 64 - 32 * away
    star, circle = ("small", "white", "star"), ("large", "green", "circle")
    caption = f"a small white star {relation} a large green circle"
    right, wrong = [(*star, *first), (*circle, *second)], [(*star, *second), (*circle, *first)]
    assert holds(right, caption)["position"] and not holds(wrong, caption)["position"]
    other = [("large", "blue", "star", *first), ("small", "red", "circle", *second)]
    assert holds(other, caption) == {
        "two_objects": True,
        "position": True,
        "attribute_binding": False,
    }
    # Here colours tell which of the two stars has to be where.
    same = f"a small white star {relation} a small blue star"
    stars = [("small", "white", "star"), ("small", "blue", "star")]
    assert holds([(*stars[0], *first), (*stars[1], *second)], same)["position"]
    assert not holds([(*stars[1], *first), (*stars[0], *second)], same)["position"]


def test_overall_is_the_unweighted_mean_over_tasks():
    """One kind of caption fails: its tasks are 0, however many pictures they have."""
    images = [
        np.full_like(image, 24) if scene.kind == "count" else image
        for image, scene in zip(IMAGES, SCENES, strict=True)
    ]
    report = geneval.score(images, CAPTIONS)
    assert report["tasks"]["counting"]["value"] == 0
    assert report["overall"]["value"] == pytest.approx(5 / 6)
    # All others always hold.
    assert report["overall"]["low"] == report["overall"]["high"] == pytest.approx(5 / 6)
    half = [np.full_like(image, 24) if i // 4 % 2 else image for i, image in enumerate(IMAGES)]
    report = geneval.score(half, CAPTIONS)
    assert report["overall"]["value"] == pytest.approx(0.5)
    assert 0.25 < report["overall"]["low"] < 0.42 and 0.58 < report["overall"]["high"] < 0.75
    assert report == geneval.score(half, CAPTIONS)
    ones = [i for i, scene in enumerate(SCENES) if scene.kind == "one"]
    report = geneval.score([IMAGES[i] for i in ones], [CAPTIONS[i] for i in ones])
    # The mean is over the tasks that were asked.
    assert list(report["tasks"]) == ["single_object", "colours"]
    assert report["overall"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 10}


def test_bad_input():
    with pytest.raises(ValueError, match="0 pictures and 0 captions"):
        geneval.score([], [])
    with pytest.raises(ValueError, match="2 pictures and 1 captions"):
        geneval.score(IMAGES[:2], CAPTIONS[:1])
    with pytest.raises(ValueError, match="'a cat'"):
        geneval.score(IMAGES[:1], ["a cat"])
