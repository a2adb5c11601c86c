"""The probe against closed forms, and recalls that are known by hand."""

import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_jax.metrics import retrieval


def data(n=200, d=6, e=4, noise=0.0, seed=0):
    """Features with uneven means and scales, and embeddings that are a linear function of them (plus noise)."""
    r = np.random.default_rng(seed)
    x = r.normal(size=(n, d)) * 10.0 ** r.uniform(-3, 3, d) + r.normal(size=d) * 5
    y = (x - x.mean(0)) / x.std(0) @ r.normal(size=(d, e)) + r.normal(size=e) + noise * r.normal(size=(n, e))
    return x, y


def test_a_linear_relation_is_found():
    x, y = data()
    probe = retrieval.fit(x[:150], y[:150])
    assert probe.penalty == min(retrieval.PENALTIES)
    np.testing.assert_allclose(retrieval.predict(probe, x[150:]), y[150:], atol=1e-3)


@pytest.mark.parametrize("shape", [(200, 6, 4), (30, 50, 3)])  # also with fewer pictures than dimensions
def test_the_ridge_is_that_of_augmented_least_squares(shape):
    """Ridge is least squares with sqrt(N penalty) times the identity as further rows, and zeros for them to meet."""
    x, y = data(*shape, noise=1.0)
    probe = retrieval.fit(x, y, seed=3)
    n, d = x.shape
    z = (x - x.mean(0)) / x.std(0)
    rows = np.concatenate([z, np.sqrt(n * probe.penalty) * np.eye(d)])
    weights = np.linalg.lstsq(rows, np.concatenate([y - y.mean(0), np.zeros((d, shape[2]))]), rcond=None)[0]
    np.testing.assert_allclose(probe.weights, weights, atol=1e-8)
    np.testing.assert_allclose(retrieval.predict(probe, x), z @ weights + y.mean(0), atol=1e-8)


def test_the_penalty_is_the_best_on_the_held_out_tenth():
    x, y = data(60, 40, 3, noise=3.0)
    probe = retrieval.fit(x, y, seed=5)
    held, rest = np.split(np.random.default_rng(5).permutation(60), [6])
    errors = {}
    for penalty in retrieval.PENALTIES:
        mean, std = x[rest].mean(0), x[rest].std(0)
        z, target = (x[rest] - mean) / std, y[rest] - y[rest].mean(0)
        weights = np.linalg.solve(z.T @ z + 54 * penalty * np.eye(40), z.T @ target)  # the normal equations
        errors[penalty] = (((x[held] - mean) / std @ weights + y[rest].mean(0) - y[held]) ** 2).mean()
    assert probe.penalty == min(errors, key=errors.get)
    assert probe.penalty > min(retrieval.PENALTIES)  # noise asks for some


def test_scale_shift_and_dead_features_do_not_matter():
    x, y = data(noise=0.3)
    dead = np.concatenate([x * 7.0 - 3.0, np.full((200, 2), 0.1)], axis=1)
    first, second = retrieval.fit(x, y), retrieval.fit(dead, y)
    np.testing.assert_allclose(retrieval.predict(first, x), retrieval.predict(second, dead), atol=1e-8)


def as_is(e):
    """A probe that gives back what it gets."""
    return retrieval.Probe(np.zeros(e), np.ones(e), np.eye(e), np.zeros(e), 0.0)


def values(report):
    return [report[f"R@{k}"]["value"] for k in (1, 5, 10)]


def test_perfect_and_permuted_rankings():
    names, eye = [f"picture {i}" for i in range(20)], np.eye(20)
    report = json.loads(json.dumps(retrieval.recall(as_is(20), eye, eye, names)))
    assert report["label"] == "self-trained probe" and report["candidates"] == 20
    for way in ("captions_of_pictures", "pictures_of_captions"):
        assert values(report[way]) == [1, 1, 1]
        assert [report[way][f"R@{k}"]["chance"] for k in (1, 5, 10)] == pytest.approx([0.05, 0.25, 0.5])
        assert report[way]["R@1"]["low"] == report[way]["R@1"]["high"] == 1 and report[way]["R@1"]["n"] == 20
    # Picture i ranks caption i at place i (from 0): above its own cosine stand the captions 0 .. i - 1.
    scores = np.where(np.arange(20) < np.arange(20)[:, None], 0.8, 0.1) + 0.4 * eye
    ranks = [retrieval.ranked_within(scores, eye > 0, k) for k in (1, 5, 10)]
    np.testing.assert_array_equal(ranks, np.arange(20) < np.array([[1], [5], [10]]))
    # Three captions change places: they are wrong, the others right.
    report = retrieval.recall(as_is(20), eye, eye[[1, 2, 0, *range(3, 20)]], names)
    assert values(report["captions_of_pictures"])[0] == values(report["pictures_of_captions"])[0] == 17 / 20
    assert 0.6 < report["captions_of_pictures"]["R@1"]["low"] < 0.85 < report["captions_of_pictures"]["R@1"]["high"] <= 1


def test_equal_captions_are_right_for_one_another():
    names = ["dog", "cat"] * 6
    words = np.eye(2)[[0, 1] * 6]
    report = retrieval.recall(as_is(2), words, words, names)
    assert values(report["captions_of_pictures"]) == values(report["pictures_of_captions"]) == [1, 1, 1]
    # chance: not all of the first k are of the other six: 1 - C(6, k) / C(12, k)
    chance = [report["captions_of_pictures"][f"R@{k}"]["chance"] for k in (1, 5, 10)]
    assert chance == pytest.approx([0.5, 1 - 6 / 792, 1])
    assert values(retrieval.recall(as_is(2), words[::-1], words, names)["captions_of_pictures"])[0] == 0
    others = retrieval.recall(as_is(2), words, words, [f"{name} {i}" for i, name in enumerate(names)])
    assert values(others["captions_of_pictures"]) == pytest.approx([1 / 6, 5 / 6, 1])  # six tie, one of them is right


def test_a_constant_probe_has_exactly_the_chance_level():
    names = ["a"] * 3 + [f"caption {i}" for i in range(12)]
    report = retrieval.recall(as_is(3), np.ones((15, 3)) * 0.7, np.random.default_rng(0).normal(size=(15, 3)), names)
    for k in ("R@1", "R@5", "R@10"):  # every caption ranks all pictures alike
        assert report["pictures_of_captions"][k]["value"] == pytest.approx(report["pictures_of_captions"][k]["chance"])


def test_random_features_are_near_chance():
    r = np.random.default_rng(0)
    probe = retrieval.fit(r.normal(size=(300, 8)), r.normal(size=(300, 16)))
    report = retrieval.recall(probe, r.normal(size=(400, 8)), r.normal(size=(400, 16)), list(map(str, range(400))))
    for way in ("captions_of_pictures", "pictures_of_captions"):
        for k, number in zip((1, 5, 10), report[way].values(), strict=True):
            assert number["chance"] == pytest.approx(k / 400)
            assert abs(number["value"] - k / 400) < 4 * np.sqrt(k / 400 / 400)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=6), st.integers(1, 6))
def test_ties_are_in_random_order(pairs, k):
    """Against the share of all orders in which a right one is among the first k."""
    scores, right = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    right[0] = True
    orders = [sorted(order, key=lambda i: -scores[i]) for order in permutations(range(len(pairs)))]  # sorting is stable
    expected = np.mean([any(right[i] for i in order[:k]) for order in orders])
    assert retrieval.ranked_within(scores[None], right[None], k)[0] == pytest.approx(expected)


def test_clip_score_by_hand():
    images, texts = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
    report = retrieval.clip_score(images, texts)  # cosines 1, -1 (counts as 0), 0.6
    assert report["value"] == pytest.approx(100 * 1.6 / 3) and report["n"] == 3
    assert report["low"] == 0 and report["high"] == pytest.approx(100)
    many = retrieval.clip_score(np.tile(images, (300, 1)), np.tile(texts, (300, 1)))
    error = 100 * np.std([1, 0, 0.6]) / 30  # the normal approximation
    assert many["high"] - many["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_bad_input():
    x, y = data(20)
    names = list(map(str, range(20)))
    with pytest.raises(ValueError, match=r"20 rows of the image features and 19 of the embeddings"):
        retrieval.fit(x, y[:19])
    with pytest.raises(ValueError, match="at least 10 samples are needed, there are 9"):
        retrieval.fit(x[:9], y[:9])
    with pytest.raises(ValueError, match=r"rows of the embeddings hold NaN or infinity, the first is row 3"):
        retrieval.fit(x, np.where(np.arange(20)[:, None] == 3, np.nan, y))
    probe = retrieval.fit(x, y)
    with pytest.raises(ValueError, match="20 pictures and 19 captions"):
        retrieval.recall(probe, x, y, names[:19])
    with pytest.raises(ValueError, match="at least 10"):
        retrieval.recall(probe, x[:9], y[:9], names[:9])
    with pytest.raises(ValueError, match="row 0 of the embeddings is zero"):
        retrieval.recall(probe, x, 0 * y, names)
    with pytest.raises(ValueError, match="the shapes must be the same"):
        retrieval.clip_score(x, y)
    with pytest.raises(ValueError, match="NaN"):
        retrieval.clip_score(x * np.nan, x)
