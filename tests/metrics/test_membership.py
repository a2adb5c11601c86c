"""Telling members from others: closed forms, ties, and what chance gives."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from t2i_jax.metrics.membership import score


def test_of_two_normal_distributions():
    """Members lie 1 lower: AUC is Phi(1 / sqrt(2)), and Phi(1 + z) of them pass the quantile."""
    rng = np.random.default_rng(0)
    members, others = rng.normal(-1, 1, 5_000), rng.normal(0, 1, 5_000)
    found = score(members, others)
    assert found["auc"]["value"] == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.02)
    assert found["found"]["value"] == pytest.approx(norm.cdf(norm.ppf(0.01) + 1), abs=0.03)
    pairs = mannwhitneyu(others, members).statistic / 5_000**2
    assert found["auc"]["value"] == pytest.approx(pairs, rel=1e-12)
    for each in found.values():
        assert each["low"] < each["value"] < each["high"]


def test_what_chance_gives():
    rng = np.random.default_rng(1)
    found = score(rng.normal(size=4000), rng.normal(size=4000))
    assert found["auc"]["low"] < 0.5 < found["auc"]["high"]
    assert found["found"]["value"] == pytest.approx(0.01, abs=0.005)


def test_equal_numbers_tell_nothing_and_apart_ones_all():
    same = score(np.zeros(100), np.zeros(150))
    assert same["auc"]["value"] == 0.5 and same["found"]["value"] == 0
    apart = score(np.zeros(100), np.ones(150))
    assert apart["auc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert apart["found"]["value"] == 1.0
    assert score(np.ones(100), np.zeros(150))["auc"]["value"] == 0.0


def test_too_few_are_refused():
    with pytest.raises(ValueError, match="99 training examples and 100 others: at least 100"):
        score(np.zeros(99), np.zeros(100))
