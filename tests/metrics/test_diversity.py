"""Distances, copies, distinct samples and loss curves against SciPy and known answers."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from scipy.stats import linregress, ortho_group

from t2i_jax.metrics import diversity
from t2i_jax.metrics.diversity import (
    convergence,
    memorised,
    mode_collapse,
    nearest_training,
    pairwise_distance,
    vendi_score,
)

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(60, 8))
CAPTIONS = [f"caption {i % 20}" for i in range(60)]


def test_distance_among_samples_of_a_caption():
    group = ["b", "a", "b", "c", "a", "b"]
    found = pairwise_distance(FEATURES[:6], group)
    b, a = pdist(FEATURES[[0, 2, 5]]).mean(), pdist(FEATURES[[1, 4]]).mean()
    assert found["groups"] == pytest.approx({"a": a, "b": b})
    assert found["value"] == pytest.approx((a + b) / 2)
    assert found["standard_error"] == pytest.approx(abs(a - b) / 2)
    json.dumps(found)
    numbers = pairwise_distance(FEATURES[:6], np.array([1, 0, 1, 2, 0, 1]))
    assert numbers["groups"] == pytest.approx({0: a, 1: b})
    assert pairwise_distance(FEATURES[:2], ["x", "x"])["standard_error"] is None
    with pytest.raises(ValueError, match="no caption has two samples"):
        pairwise_distance(FEATURES[:3], [1, 2, 3])
    with pytest.raises(ValueError, match=r"60 features, and groups of shape \[3\]"):
        pairwise_distance(FEATURES, [1, 2, 3])


def test_the_nearest_training_picture():
    training = RNG.normal(size=(2500, 8))  # more than a tile
    features = np.concatenate([training[[2400, 7]], FEATURES])
    index, distance = nearest_training(features, training)
    expected = cdist(features, training)
    np.testing.assert_array_equal(index, expected.argmin(1))
    np.testing.assert_allclose(distance, expected.min(1), rtol=1e-12)
    assert (distance[:2] == 0).all() and (distance[2:] > 0).all()
    with pytest.raises(ValueError, match="features have 7 dimensions and the training features 8"):
        nearest_training(FEATURES[:, 1:], training)


def test_copies_are_memorised_and_new_samples_are_not():
    rng = np.random.default_rng(1)
    training, held_out, new = (rng.normal(size=(n, 8)) for n in (500, 1000, 1000))
    fresh = memorised(new, training, held_out)
    assert fresh["value"] == pytest.approx(0.05, abs=0.03)
    nearest = cdist(held_out, training).min(1)
    assert fresh["threshold"] == pytest.approx(np.quantile(nearest, 0.05))
    assert memorised(held_out, training, held_out, 0.3)["value"] == pytest.approx(0.3, abs=2e-3)
    copied = memorised(np.concatenate([new[:60], training[:40] + 1e-3]), training, held_out, 0.01)
    assert 0.4 <= copied["value"] <= 0.45
    np.testing.assert_array_equal(copied["index"][60:], np.arange(40))
    # Copies are at distance 0, which a threshold of 0 includes.
    assert memorised(training, training, training)["value"] == 1
    with pytest.raises(
        ValueError, match="held-out features: at least 20 samples are needed, there are 19"
    ):
        memorised(new, training, held_out[:19])
    with pytest.raises(ValueError, match="quantile must lie between 0 and 1, not be 5"):
        memorised(new, training, held_out, 5)


def test_vendi_score_counts_distinct_samples():
    assert vendi_score(np.eye(9)) == pytest.approx(9)
    assert vendi_score(np.ones((9, 4))) == pytest.approx(1)
    assert vendi_score(np.repeat(np.eye(5), 20, 0)) == pytest.approx(5)
    uneven = np.repeat(np.eye(2), (30, 10), 0)  # a quarter and three quarters
    assert vendi_score(uneven) == pytest.approx(np.exp(-0.25 * np.log(0.25) - 0.75 * np.log(0.75)))
    with pytest.raises(ValueError, match="row 0 of features is zero"):
        vendi_score(np.zeros((3, 4)))


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
@settings(max_examples=20, deadline=None)
def test_vendi_score_is_that_of_the_kernel_matrix(seed, n):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 5))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    values = np.clip(np.linalg.eigvalsh(unit @ unit.T / n), 1e-300, None)
    expected = np.exp(-np.sum(values * np.log(values)))
    turned = rng.permutation(features @ ortho_group.rvs(5, random_state=rng) * 3)
    assert vendi_score(turned) == pytest.approx(expected, rel=1e-9)
    assert 1 <= expected <= min(n, 5) + 1e-9


def test_signs_of_collapse():
    rng = np.random.default_rng(2)
    real, healthy = (rng.normal(size=(600, 8)) for _ in range(2))
    group = np.arange(600) % 150
    found = mode_collapse(healthy, group, real, group)
    assert found["distance"] == pytest.approx(1, abs=0.05)
    assert found["within"] == pytest.approx(1, abs=0.05)
    assert found["vendi"] == pytest.approx(found["vendi_real"], rel=0.05)
    assert found["duplicates"] <= 0.03
    one_a_caption = mode_collapse(healthy[group] + 1e-4 * real, group, real, group)
    assert one_a_caption["within"] < 1e-3 and one_a_caption["duplicates"] == 1
    assert one_a_caption["distance"] == pytest.approx(1, abs=0.05)
    one_mode = mode_collapse(healthy * 0.1 + 5, group, real[:500], group[:500])
    assert one_mode["distance"] == pytest.approx(0.1, rel=0.05)
    assert one_mode["vendi"] < 1.1 < one_mode["vendi_real"]
    assert mode_collapse(healthy, group, real, range(600))["within"] is None
    with pytest.raises(ValueError, match="real pictures are all alike"):
        mode_collapse(healthy, group, np.ones((600, 8)), group)
    with pytest.raises(ValueError, match="600 and 5 captions for 600 and 600 pictures"):
        mode_collapse(healthy, group, real, group[:5])


def test_a_loss_that_falls_and_one_that_has_converged():
    steps, noise = np.arange(1000) * 10, np.random.default_rng(3).normal(size=1000) * 0.01
    fall = convergence(steps, 1 - steps * 5e-5 + noise)
    late = steps >= steps[-1] * 0.75
    line = linregress(steps[late], (1 - steps * 5e-5 + noise)[late])
    assert fall["slope"] == pytest.approx(line.slope)
    assert fall["slope_error"] == pytest.approx(line.stderr)
    assert fall["falls"] is True and abs(fall["slope"] + 5e-5) < 4 * fall["slope_error"]
    assert fall["final"] == pytest.approx(1 - steps[-100:].mean() * 5e-5, abs=0.004)
    rest = convergence(steps, np.exp(-steps / 500) + 0.3 + noise)
    assert rest["falls"] is False and abs(rest["slope"]) < 4 * rest["slope_error"]
    rise = convergence(steps, 1 + steps * 5e-5 + noise)
    assert rise["falls"] is False and rise["slope"] > 0
    assert {fall["spikes"], rest["spikes"], rise["spikes"]} == {0}
    json.dumps([fall, rest, rise])


def test_spikes_and_bad_numbers_are_counted():
    steps = np.arange(400)
    losses = 0.5 + np.random.default_rng(4).normal(size=400) * 0.01
    losses[[50, 51, 200, 399 - 1]] = 3.0  # two neighbours are one jump
    losses[120] = 0.1
    assert convergence(steps, losses)["spikes"] == 3
    found = convergence(steps, losses)
    assert found["best"] == 0.1 and found["best_step"] == 120
    losses[[7, 300]] = np.nan, np.inf
    found = convergence(steps, losses)
    assert found["not_finite"] == 2 and found["spikes"] == 3 and np.isfinite(found["slope"])
    smooth = convergence(steps, np.exp(-steps / 100))
    assert smooth["spikes"] == 0 and smooth["best_step"] == 399 and smooth["falls"] is True
    assert convergence(steps, np.sqrt(steps))["spikes"] == 0
    flat = convergence(steps, np.full(400, 0.1))
    assert (flat["spikes"], flat["falls"]) == (0, False)
    assert flat["slope"] == pytest.approx(0, abs=1e-15)


def test_short_curves():
    one = convergence([5], [2.0])
    expected = {
        "final": 2,
        "best": 2,
        "best_step": 5,
        "slope": None,
        "slope_error": None,
        "falls": None,
    }
    assert one == {**expected, "spikes": 0, "not_finite": 0}
    assert convergence([0, 1, 2], [3.0, 2.0, 1.0])["slope"] is None
    with pytest.raises(ValueError, match="none of the 2 losses is a finite number"):
        convergence([1, 2], [np.nan, np.inf])
    with pytest.raises(ValueError, match=r"steps must rise, one a loss: \[2\] steps, \[2\] losses"):
        convergence([2, 2], [1.0, 1.0])
    assert diversity.convergence([0, 1], [1.0, np.nan])["best_step"] == 0
