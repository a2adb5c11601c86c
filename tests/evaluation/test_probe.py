"""The probe against closed forms."""

import numpy as np
import pytest

from t2i_jax.evaluation import probe as probes
from t2i_jax.metrics import retrieval


def data(n=200, d=6, e=4, noise=0.0, seed=0):
    """Features of uneven means and scales, and embeddings: a linear function of them, and noise."""
    r = np.random.default_rng(seed)
    x = r.normal(size=(n, d)) * 10.0 ** r.uniform(-3, 3, d) + r.normal(size=d) * 5
    linear = (x - x.mean(0)) / x.std(0) @ r.normal(size=(d, e)) + r.normal(size=e)
    return x, linear + noise * r.normal(size=(n, e))


def test_a_linear_relation_is_found():
    x, y = data()
    probe = probes.fit(x[:150], y[:150])
    assert probe.penalty == min(probes.PENALTIES)
    np.testing.assert_allclose(probes.predict(probe, x[150:]), y[150:], atol=1e-3)


# Also with fewer pictures than dimensions.
@pytest.mark.parametrize("shape", [(200, 6, 4), (30, 50, 3)])
def test_the_ridge_is_that_of_augmented_least_squares(shape):
    """Ridge is least squares with more rows: sqrt(N penalty) times the identity, for targets 0."""
    x, y = data(*shape, noise=1.0)
    probe = probes.fit(x, y, seed=3)
    n, d = x.shape
    z = (x - x.mean(0)) / x.std(0)
    rows = np.concatenate([z, np.sqrt(n * probe.penalty) * np.eye(d)])
    targets = np.concatenate([y - y.mean(0), np.zeros((d, shape[2]))])
    weights = np.linalg.lstsq(rows, targets, rcond=None)[0]
    np.testing.assert_allclose(probe.weights, weights, atol=1e-8)
    np.testing.assert_allclose(probes.predict(probe, x), z @ weights + y.mean(0), atol=1e-8)


def test_the_penalty_is_the_best_on_the_held_out_tenth():
    x, y = data(60, 40, 3, noise=3.0)
    probe = probes.fit(x, y, seed=5)
    held_out, rest = np.split(np.random.default_rng(5).permutation(60), [6])
    errors = {}
    for penalty in probes.PENALTIES:
        mean, std = x[rest].mean(0), x[rest].std(0)
        z, target = (x[rest] - mean) / std, y[rest] - y[rest].mean(0)
        # the normal equations
        weights = np.linalg.solve(z.T @ z + 54 * penalty * np.eye(40), z.T @ target)
        predicted = (x[held_out] - mean) / std @ weights + y[rest].mean(0)
        errors[penalty] = ((predicted - y[held_out]) ** 2).mean()
    assert probe.penalty == min(errors, key=errors.get)
    assert probe.penalty > min(probes.PENALTIES)  # noise needs more


def test_scale_shift_and_dead_features_do_not_matter():
    x, y = data(noise=0.3)
    dead = np.concatenate([x * 7.0 - 3.0, np.full((200, 2), 0.1)], axis=1)
    first, second = probes.fit(x, y), probes.fit(dead, y)
    np.testing.assert_allclose(probes.predict(first, x), probes.predict(second, dead), atol=1e-8)


def test_recall_is_that_of_the_predictions():
    x, y = data(30, noise=1.0)
    names = [f"caption {i}" for i in range(30)]
    probe = probes.fit(x, y)
    report = probes.recall(probe, x, y, names, seed=2)
    assert report.pop("label") == "self-trained probe"
    assert report == retrieval.recall(probes.predict(probe, x), y, names, seed=2)


def test_random_features_are_near_chance():
    r = np.random.default_rng(0)
    probe = probes.fit(r.normal(size=(300, 8)), r.normal(size=(300, 16)))
    features, embeddings = r.normal(size=(400, 8)), r.normal(size=(400, 16))
    report = probes.recall(probe, features, embeddings, list(map(str, range(400))))
    for way in ("captions_of_pictures", "pictures_of_captions"):
        for k, number in zip((1, 5, 10), report[way].values(), strict=True):
            assert number["chance"] == pytest.approx(k / 400)
            assert abs(number["value"] - k / 400) < 4 * np.sqrt(k / 400 / 400)


def test_bad_input():
    x, y = data(20)
    names = list(map(str, range(20)))
    with pytest.raises(ValueError, match=r"20 rows of the image features and 19 of the embeddings"):
        probes.fit(x, y[:19])
    with pytest.raises(ValueError, match="at least 10 samples are needed, there are 9"):
        probes.fit(x[:9], y[:9])
    with pytest.raises(
        ValueError, match=r"rows of the embeddings hold NaN or infinity, the first is row 3"
    ):
        probes.fit(x, np.where(np.arange(20)[:, None] == 3, np.nan, y))
    probe = probes.fit(x, y)
    with pytest.raises(ValueError, match="20 pictures and 19 captions"):
        probes.recall(probe, x, y, names[:19])
    with pytest.raises(ValueError, match="image features: at least 10"):
        probes.recall(probe, x[:9], y[:9], names[:9])
    with pytest.raises(ValueError, match="row 0 of the embeddings is zero"):
        probes.recall(probe, x, 0 * y, names)
