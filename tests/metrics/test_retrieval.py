"""Recalls and CLIP scores that are known by hand."""

import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_jax.metrics import retrieval


def values(report):
    return [report[f"R@{k}"]["value"] for k in (1, 5, 10)]


def test_perfect_and_permuted_rankings():
    names, eye = [f"picture {i}" for i in range(20)], np.eye(20)
    report = json.loads(json.dumps(retrieval.recall(eye, eye, names)))
    assert report["candidates"] == 20
    for way in ("captions_of_pictures", "pictures_of_captions"):
        assert values(report[way]) == [1, 1, 1]
        chance = [report[way][f"R@{k}"]["chance"] for k in (1, 5, 10)]
        assert chance == pytest.approx([0.05, 0.25, 0.5])
        first = report[way]["R@1"]
        assert first["low"] == first["high"] == 1 and first["n"] == 20
    # Picture i ranks caption i at place i (from 0): the captions 0 .. i - 1 score higher.
    scores = np.where(np.arange(20) < np.arange(20)[:, None], 0.8, 0.1) + 0.4 * eye
    hits = [retrieval.hit_probability(scores, eye > 0, k) for k in (1, 5, 10)]
    np.testing.assert_array_equal(hits, np.arange(20) < np.array([[1], [5], [10]]))
    # Three captions change places: they are wrong, the others right.
    report = retrieval.recall(eye, eye[[1, 2, 0, *range(3, 20)]], names)
    for way in ("captions_of_pictures", "pictures_of_captions"):
        assert values(report[way])[0] == 17 / 20
    first = report["captions_of_pictures"]["R@1"]
    assert 0.6 < first["low"] < 0.85 < first["high"] <= 1


def test_equal_captions_are_right_for_one_another():
    names = ["dog", "cat"] * 6
    words = np.eye(2)[[0, 1] * 6]
    report = retrieval.recall(words, words, names)
    for way in ("captions_of_pictures", "pictures_of_captions"):
        assert values(report[way]) == [1, 1, 1]
    # chance: not all of the first k are of the other six: 1 - C(6, k) / C(12, k)
    chance = [report["captions_of_pictures"][f"R@{k}"]["chance"] for k in (1, 5, 10)]
    assert chance == pytest.approx([0.5, 1 - 6 / 792, 1])
    swapped = retrieval.recall(words[::-1], words, names)
    assert values(swapped["captions_of_pictures"])[0] == 0
    # Six captions tie, and one of them is right.
    others = retrieval.recall(words, words, [f"{name} {i}" for i, name in enumerate(names)])
    assert values(others["captions_of_pictures"]) == pytest.approx([1 / 6, 5 / 6, 1])


def test_constant_predictions_have_exactly_the_chance_level():
    names = ["a"] * 3 + [f"caption {i}" for i in range(12)]
    embeddings = np.random.default_rng(0).normal(size=(15, 3))
    report = retrieval.recall(np.ones((15, 3)) * 0.7, embeddings, names)
    for k in ("R@1", "R@5", "R@10"):  # every caption ranks all pictures alike
        number = report["pictures_of_captions"][k]
        assert number["value"] == pytest.approx(number["chance"])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=6), st.integers(1, 6)
)
def test_ties_are_in_random_order(pairs, k):
    """Against the share of all orders in which a right answer is among the first k."""
    scores, right = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    right[0] = True
    # Sorting is stable.
    orders = [sorted(order, key=lambda i: -scores[i]) for order in permutations(range(len(pairs)))]
    expected = np.mean([any(right[i] for i in order[:k]) for order in orders])
    assert retrieval.hit_probability(scores[None], right[None], k)[0] == pytest.approx(expected)


def test_clip_score_by_hand():
    images = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    texts = np.array([[5.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
    report = retrieval.clip_score(images, texts)  # cosines 1, -1 (counts as 0), 0.6
    assert report["value"] == pytest.approx(100 * 1.6 / 3) and report["n"] == 3
    assert report["low"] == 0 and report["high"] == pytest.approx(100)
    many = retrieval.clip_score(np.tile(images, (300, 1)), np.tile(texts, (300, 1)))
    error = 100 * np.std([1, 0, 0.6]) / 30  # the normal approximation
    assert many["high"] - many["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_bad_input():
    r = np.random.default_rng(0)
    x, y = r.normal(size=(20, 4)), r.normal(size=(20, 4))
    names = list(map(str, range(20)))
    with pytest.raises(ValueError, match="20 pictures and 19 captions"):
        retrieval.recall(x, y, names[:19])
    with pytest.raises(ValueError, match="20 rows of the predicted embeddings and 19 of the emb"):
        retrieval.recall(x, y[:19], names)
    with pytest.raises(ValueError, match="at least 10"):
        retrieval.recall(x[:9], y[:9], names[:9])
    with pytest.raises(ValueError, match="row 0 of the embeddings is zero"):
        retrieval.recall(x, 0 * y, names)
    with pytest.raises(ValueError, match="the shapes must be the same"):
        retrieval.clip_score(x, y[:, :3])
    with pytest.raises(ValueError, match="NaN"):
        retrieval.clip_score(x * np.nan, x)
