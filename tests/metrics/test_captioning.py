"""Captions that mean the same, captions that are true of their pictures, and common words."""

import numpy as np
import pytest

from t2i_jax.data import shapes
from t2i_jax.data.render import draw
from t2i_jax.metrics.captioning import mean_interval, meaning, score, word_f1

SCENES = [shapes.scene("test", i) for i in range(40)]
TRUE = [scene.caption for scene in SCENES]
IMAGES = [draw(scene.objects, 32) for scene in SCENES]
A, B = "a small red cross", "a large blue circle"


def turned(caption):
    """Return a caption with the same meaning and the objects in the other order."""
    for relation, opposite in {
        "above": "below",
        "below": "above",
        "left of": "right of",
        "right of": "left of",
        "and": "and",
    }.items():
        if f" {relation} " in caption:
            first, second = caption.split(f" {relation} ")
            return f"{second} {opposite} {first}"
    return caption


def test_captions_that_mean_the_same():
    assert (
        meaning(f"{A} left of {B}")
        == meaning(f"{B} right of {A}")
        == meaning("the big cobalt disc to the right of the tiny crimson plus")
    )
    assert meaning(f"{A} above {B}") == meaning(f"{B} below {A}") != meaning(f"{B} above {A}")
    assert meaning(f"{A} and {B}") == meaning(f"{B} and {A}") != meaning(f"{A} left of {B}")
    assert (
        meaning("two small red crosses")
        == meaning("a pair of little scarlet pluses")
        != meaning("three small red crosses")
    )
    with pytest.raises(ValueError, match="'cat'"):
        meaning("cat")


def test_true_captions_agree_in_any_words():
    rng = np.random.default_rng(0)
    for found in (TRUE, [turned(c) for c in TRUE], [shapes.paraphrase(c, rng) for c in TRUE]):
        report = score(found, TRUE, IMAGES)
        assert report["agrees"]["value"] == report["exact"]["value"] == 1
        assert report["unparsed"] == 0
        counts = {kind: r["n"] for kind, r in report["kinds"].items()}
        assert counts == dict.fromkeys(shapes.KINDS, 10)


def test_a_relation_that_is_left_out_is_not_exact_but_true():
    index = [i for i, scene in enumerate(SCENES) if scene.kind == "relation"]
    true, images = [TRUE[i] for i in index], [IMAGES[i] for i in index]
    less = [c.replace(f" {SCENES[i].relation} ", " and ") for c, i in zip(true, index, strict=True)]
    report = score(less, true, images)
    assert report["agrees"]["value"] == 1 and report["exact"]["value"] == 0
    first, _, second = less[0].partition(" and ")
    wrong = score([f"{second} {SCENES[index[0]].relation} {first}"], true[:1], images[:1])
    assert wrong["agrees"]["value"] == wrong["exact"]["value"] == 0


def test_false_captions_and_nonsense():
    found = [TRUE[0], TRUE[4], "a red", "", TRUE[8]]
    index = (0, 8, 1, 2, 8)
    report = score(found, [TRUE[i] for i in index], [IMAGES[i] for i in index])
    assert report["unparsed"] == 0.4
    assert report["agrees"]["value"] == report["exact"]["value"] == 0.4
    assert report["agrees"]["low"] < 0.4 < report["agrees"]["high"]
    kinds = {kind: (r["value"], r["n"]) for kind, r in report["kinds"].items()}
    assert kinds == {"one": (pytest.approx(2 / 3), 3), "relation": (0, 1), "count": (0, 1)}


def test_word_f1_by_hand():
    found = ["a red fox", "Fox, a RED", "cat", "", "", "a a b", "fox"]
    true = ["a red fox", "a red fox", "a red fox", "a red fox", "", "a b b", "a red fox"]
    np.testing.assert_allclose(word_f1(found, true), [1, 1, 0, 0, 1, 2 / 3, 0.5])


def test_word_f1_of_other_scripts_and_of_emoji():
    found = ["🦊", "🦊 fox", "लाल लोमड़ी", "लाल लोमड़ी", "赤い 狐", "fox_cat"]
    true = ["🐱", "fox", "लाल बिल्ली", "लाल लोमड़ी", "赤い、狐", "fox cat"]
    np.testing.assert_allclose(word_f1(found, true), [0, 2 / 3, 0.5, 1, 0, 1])


def test_bad_input():
    with pytest.raises(ValueError, match="2 and 1 captions"):
        word_f1(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="at least one"):
        score([], [], [])
    with pytest.raises(ValueError, match="not a caption"):
        score([A], ["cat"], IMAGES[:1])


def test_mean_interval_is_that_of_the_mean():
    """Many numbers: about 1.96 standard errors to each side. Equal numbers: no width."""
    values = np.random.default_rng(0).beta(2, 1, 400)
    found = mean_interval(values)
    error = 1.96 * values.std() / 20
    assert found["value"] == values.mean() and found["n"] == 400
    np.testing.assert_allclose(
        [found["low"], found["high"]],
        [values.mean() - error, values.mean() + error],
        atol=0.15 * error,
    )
    alike = mean_interval(np.full(5, 0.5))
    assert alike["low"] == alike["high"] == 0.5
