"""Frechet distance, KID, CMMD, balls and Inception Score against plain loops and closed forms."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group

from t2i_jax.metrics import distances, fidelity
from t2i_jax.metrics.fidelity import Moments, frechet_distance, kid, moments

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(60, 5))
FAKE = RNG.normal(size=(47, 5)) * 0.8 + 0.3
SPLITS = (1, 7, 64)


def chunks(features, size):
    return [features[i : i + size] for i in range(0, len(features), size)]


def gaussian(mean, covariance):
    return Moments(10**6, np.asarray(mean, float), np.asarray(covariance, float))


@pytest.fixture
def small_tiles(monkeypatch):
    """All sums over pairs are made of many tiles, the last ones incomplete."""
    original = distances.tiles
    monkeypatch.setattr(fidelity, "tiles", lambda n, m: original(n, m, 4))
    monkeypatch.setattr(distances, "tiles", lambda n, m, tile=4: original(n, m, 4))


# Frechet distance


def test_moments_are_mean_and_covariance():
    features = RNG.normal(size=(2000, 6)) * 3 + 1000
    count, mean, covariance = moments(chunks(features, 300))
    assert count == 2000
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(features, rowvar=False), rtol=1e-10, atol=1e-10)


def test_chunks_change_no_bit():
    features = RNG.normal(size=(1300, 40)).astype(np.float32) * np.arange(1, 41)
    real = moments([features[::-1] + 0.1])
    found = [moments(chunks(features, size)) for size in SPLITS]
    for other in found[1:]:
        np.testing.assert_array_equal(other.mean, found[0].mean)
        np.testing.assert_array_equal(other.covariance, found[0].covariance)
    assert len({frechet_distance(real, each) for each in found}) == 1


def test_chunks_are_read_one_after_another():
    made = []

    def stream():
        for _ in range(50):
            made.append(np.ones((100, 3)) * len(made))
            yield made[-1]
            made[-1][:] = np.nan  # a caller may use its buffer again

    assert moments(stream()).mean == pytest.approx([24.5] * 3)


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_frechet_of_diagonal_gaussians(data):
    positive = st.lists(st.floats(0, 100), min_size=4, max_size=4)
    mean_a, mean_b, a, b = (np.array(data.draw(positive)) for _ in range(4))
    expected = ((mean_a - mean_b) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = frechet_distance(gaussian(mean_a, np.diag(a)), gaussian(mean_b, np.diag(b)))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_frechet_of_commuting_covariances(seed):
    rng = np.random.default_rng(seed)
    turn, a, b = ortho_group.rvs(6, random_state=rng), rng.uniform(0, 5, 6), rng.uniform(0, 5, 6)
    found = frechet_distance(
        gaussian(np.zeros(6), turn * a @ turn.T), gaussian(np.ones(6), turn * b @ turn.T)
    )
    assert found == pytest.approx(6 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), rel=1e-9)


def test_frechet_is_that_of_sqrtm_and_invariant_and_zero():
    a = RNG.normal(size=(300, 30))
    b = RNG.normal(size=(400, 30)) @ (RNG.normal(size=(30, 30)) / 5) + 0.2
    one, two = moments([a]), moments([b])
    away, root = one.mean - two.mean, linalg.sqrtm(one.covariance @ two.covariance)
    expected = away @ away + np.trace(one.covariance + two.covariance - 2 * root).real
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(two, one) == pytest.approx(expected, rel=1e-9)
    turn = ortho_group.rvs(30, random_state=0)
    turned = frechet_distance(moments([a @ turn + 7]), moments([b[::-1] @ turn + 7]))
    assert turned == pytest.approx(expected, rel=1e-9)
    assert 0 <= frechet_distance(one, one) < 1e-10


def test_frechet_of_singular_covariances():
    flat = RNG.normal(size=(100, 3)) * [1, 1, 0]
    point = moments([np.full((9, 3), 2.0)])
    assert (point.covariance == 0).all()
    here = moments([flat])
    expected = ((here.mean - 2) ** 2).sum() + np.trace(here.covariance)
    assert frechet_distance(here, point) == pytest.approx(expected, rel=1e-12)
    plane = RNG.normal(size=(100, 2)) @ RNG.normal(size=(2, 30))
    once, twice = moments([plane]), moments([plane * 2])
    expected = (once.mean**2).sum() + np.trace(once.covariance)
    assert frechet_distance(once, twice) == pytest.approx(expected, rel=1e-9)


def test_too_few_samples_are_refused():
    enough, few = moments([RNG.normal(size=(21, 20))]), moments([RNG.normal(size=(20, 20))])
    assert frechet_distance(enough, enough) < 1e-10
    with pytest.raises(ValueError, match=r"20 samples of 20 dimensions\. Use KID"):
        frechet_distance(enough, few)
    with pytest.raises(ValueError, match="of 20 and of 5 dimensions"):
        frechet_distance(enough, moments([REAL]))


def test_bad_streams_are_named():
    bad = np.zeros((1100, 3))
    bad[[600, 700], 1] = np.nan, np.inf
    for size in SPLITS:
        with pytest.raises(
            ValueError, match="2 of 512 rows of features hold NaN or infinity, the first is row 600"
        ):
            moments(chunks(bad, size))
    with pytest.raises(ValueError, match=r"shape \[n, 3\], one is \[4, 2\]"):
        moments([bad[:5], np.zeros((4, 2))])
    for empty in ([], [np.zeros((0, 3))], [np.zeros((1, 3))]):
        with pytest.raises(ValueError, match="at least two features"):
            moments(empty)


# KID and CMMD


def naive_mmd(a, b, kernel):
    within = [np.mean([kernel(x, y) for x, y in permutations(s, 2)]) for s in (a, b)]
    return sum(within) - 2 * np.mean([kernel(x, y) for x, y in product(a, b)])


@pytest.mark.parametrize("degree", [1, 3])
def test_kid_is_a_double_loop(small_tiles, degree):
    expected = naive_mmd(REAL, FAKE, lambda x, y: (x @ y / 5 + 1) ** degree)
    assert kid(REAL, FAKE, degree)["value"] == pytest.approx(expected, rel=1e-10)
    same = naive_mmd(REAL, REAL, lambda x, y: (x @ y / 5 + 1) ** degree)
    assert kid(REAL, REAL, degree)["value"] == pytest.approx(same, rel=1e-10)


def test_kid_of_subsets(small_tiles):
    rows = np.random.RandomState(5)
    values = [
        kid(REAL[rows.choice(60, 20, False)], FAKE[rows.choice(47, 20, False)])["value"]
        for _ in range(4)
    ]
    found = fidelity.kid_of_subsets(REAL, FAKE, subsets=4, size=20, seed=5)
    assert found == pytest.approx({"value": np.mean(values), "std": np.std(values)}, rel=1e-12)
    with pytest.raises(ValueError, match="at least 50 samples are needed, there are 47"):
        fidelity.kid_of_subsets(REAL, FAKE, size=50)


def true_kid(mean, d):
    """MMD² of N(0, I) and N(mean, I).

    From E (x·y / d + 1)³ of each pair of independent samples, by their moments.
    """

    def expected(p, q):
        second = [np.eye(d) + np.outer(m, m) for m in (p, q)]
        third = []
        for m in (p, q):
            spread = np.einsum("i,jk->ijk", m, np.eye(d))
            third.append(
                np.einsum("i,j,k->ijk", m, m, m)
                + spread
                + spread.transpose(1, 0, 2)
                + spread.transpose(1, 2, 0)
            )
        return (
            (third[0] * third[1]).sum() / d**3
            + 3 * (second[0] * second[1]).sum() / d**2
            + 3 * (p @ q) / d
            + 1
        )

    zero = np.zeros(d)
    return expected(zero, zero) + expected(mean, mean) - 2 * expected(zero, mean)


def test_variance_of_kid_is_the_unbiased_estimate(small_tiles):
    """It is the square of MMD² minus an unbiased estimate of its expectation's square.

    In the latter, each sample occurs once.
    """
    a, b = REAL[:6], FAKE[:5] + 1
    aa, bb, ab = ((x @ y.T / 5 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    four = [list(permutations(range(n), 4)) for n in (6, 5)]
    pairs = list(product(permutations(range(6), 2), permutations(range(5), 2)))
    square = np.mean([aa[i, j] * aa[k, l] for i, j, k, l in four[0]])
    square += np.mean([bb[i, j] * bb[k, l] for i, j, k, l in four[1]])
    square += 2 * np.mean([aa[i, j] * bb[k, l] for (i, j), (k, l) in pairs])
    square += 4 * np.mean([ab[i, k] * ab[j, l] for (i, j), (k, l) in pairs])
    square -= 4 * np.mean(
        [aa[i, j] * ab[k, l] for i, j, k in permutations(range(6), 3) for l in range(5)]
    )
    square -= 4 * np.mean(
        [bb[i, j] * ab[l, k] for i, j, k in permutations(range(5), 3) for l in range(6)]
    )
    found = kid(a, b)
    assert found["standard_error"] ** 2 == pytest.approx(found["value"] ** 2 - square, rel=1e-9)


@pytest.mark.parametrize("shift, most", [(0.0, 1.5), (0.1, 1.2), (0.5, 1.15)])
def test_kid_is_unbiased_and_its_standard_error_true(shift, most):
    rng, d, runs = np.random.default_rng(1), 30, 1000
    true = true_kid(np.full(d, shift), d)
    found = [kid(rng.normal(size=(60, d)), rng.normal(size=(40, d)) + shift) for _ in range(runs)]
    values, errors = (np.array([f[key] for f in found]) for key in ("value", "standard_error"))
    assert abs(values.mean() - true) < 3.5 * values.std() / np.sqrt(runs)
    # Too large where there is no distance, because estimates below 0 are cut.
    assert 0.87 < np.mean(errors**2) / values.var() < most
    inside = np.mean([f["low"] <= true <= f["high"] for f in found])
    assert 0.92 <= inside <= 0.99


def test_kid_of_pairs_is_a_double_loop_without_the_pairs(small_tiles):
    """And its error is the jackknife's: that of the values without one pair each."""

    def by_hand(a, b):
        def h(i, j):
            k = [(x @ y / len(x) + 1) ** 3 for x, y in ((a[i], a[j]), (b[i], b[j]), (a[i], b[j]))]
            return k[0] + k[1] - k[2] - (a[j] @ b[i] / a.shape[1] + 1) ** 3

        return np.mean([h(i, j) for i in range(len(a)) for j in range(len(a)) if i != j])

    a, b = REAL[:20], FAKE[:20]
    found = fidelity.kid_of_pairs(a, b)
    assert found["value"] == pytest.approx(by_hand(a, b), rel=1e-9)
    without = [by_hand(np.delete(a, i, 0), np.delete(b, i, 0)) for i in range(20)]
    assert found["standard_error"] ** 2 == pytest.approx(19 * np.var(without), rel=1e-6)
    assert found["high"] - found["value"] == pytest.approx(1.96 * found["standard_error"])
    same = fidelity.kid_of_pairs(a, a)
    assert abs(same["value"]) < 1e-9 and same["standard_error"] < 1e-9
    with pytest.raises(ValueError, match="20 and 19 features: pairs need as many of both"):
        fidelity.kid_of_pairs(a, b[:19])


def test_kid_of_pairs_is_unbiased_where_kid_is_too_small():
    rng, d, runs = np.random.default_rng(0), 4, 600
    true = true_kid(np.full(d, 0.5), d)
    firsts = [rng.normal(size=(30, d)) for _ in range(runs)]
    for estimate, bias in ((fidelity.kid_of_pairs, False), (kid, True)):
        found = np.array([estimate(a, a + 0.5)["value"] for a in firsts])
        error = found.std() / np.sqrt(runs)
        assert (found.mean() < true - 8 * error) == bias
        assert bias or abs(found.mean() - true) < 3 * error


def test_kid_needs_four_good_samples():
    assert np.isfinite(list(kid(REAL[:4], FAKE[:4]).values())).all()
    with pytest.raises(
        ValueError, match="the second features: at least 4 samples are needed, there are 3"
    ):
        kid(REAL, FAKE[:3])
    with pytest.raises(ValueError, match="5 dimensions and the second features 4"):
        kid(REAL, FAKE[:, :4])
    with pytest.raises(ValueError, match="60 of 60 rows of the first features hold NaN"):
        kid(REAL * np.nan, FAKE)
    alike = kid(np.ones((9, 5)), np.ones((9, 5)))
    assert alike == pytest.approx(dict.fromkeys(alike, 0.0), abs=1e-6)


def test_cmmd_is_a_biased_double_loop(small_tiles):
    def kernel(x, y):
        return np.exp(-np.sum((x / np.linalg.norm(x) - y / np.linalg.norm(y)) ** 2) / 200)

    within = sum(np.mean([kernel(x, y) for x, y in product(s, s)]) for s in (REAL, FAKE))
    expected = 1000 * (within - 2 * np.mean([kernel(x, y) for x, y in product(REAL, FAKE)]))
    assert fidelity.cmmd(REAL, FAKE * 3) == pytest.approx(expected, rel=1e-8)
    assert fidelity.cmmd(REAL, REAL[::-1]) == pytest.approx(0, abs=1e-12)


# Balls around samples


def naive_balls(real, fake, k):
    """For each pair, whether the fake lies in the ball of the real one."""
    radius = np.sort(cdist(real, real), axis=1)[:, k]
    return cdist(real, fake) < radius[:, None]


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_balls_are_those_of_brute_force(seed, k):
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(30, 3)), rng.normal(size=(21, 3)) * rng.uniform(0.3, 2)
    balls = naive_balls(real, fake, k)
    turn = ortho_group.rvs(3, random_state=rng)
    for a, b in ((real, fake), (real[::-1] @ turn + 2, fake[::-1] @ turn + 2)):
        found = fidelity.precision_recall(a, b, k)
        expected = {
            "precision": balls.any(0).mean(),
            "recall": naive_balls(fake, real, k).any(0).mean(),
        }
        assert found == pytest.approx(expected)
        expected = {"density": balls.sum() / (k * 21), "coverage": balls.any(1).mean()}
        assert fidelity.density_coverage(a, b, k) == pytest.approx(expected)


def test_balls_of_many_tiles(small_tiles):
    balls = naive_balls(REAL, FAKE, 3)
    assert fidelity.precision_recall(REAL, FAKE)["precision"] == pytest.approx(balls.any(0).mean())
    expected = {"density": balls.sum() / (3 * 47), "coverage": balls.any(1).mean()}
    assert fidelity.density_coverage(REAL, FAKE, 3) == pytest.approx(expected)


def test_identical_and_disjoint_sets():
    assert fidelity.precision_recall(REAL, REAL) == {"precision": 1, "recall": 1}
    assert fidelity.density_coverage(REAL, REAL[::-1] + 0) == {"density": 1, "coverage": 1}
    assert fidelity.precision_recall(REAL, FAKE + 100) == {"precision": 0, "recall": 0}
    assert fidelity.density_coverage(REAL, FAKE + 100) == {"density": 0, "coverage": 0}


def test_edges_of_balls():
    real, fake = np.arange(9.0)[:, None] / 3, np.array([-1.0, -1.01, -1.02, 9, 9.01])[:, None] / 3
    assert fidelity.precision_recall(real, fake, k=1)["precision"] == 2 / 5
    assert fidelity.density_coverage(real, fake, k=1)["density"] == 0


def test_one_mode_of_two_is_precise_and_half_recalled():
    modes = np.concatenate([REAL, REAL + 100])
    found = fidelity.precision_recall(modes, REAL)
    assert found == {"precision": 1, "recall": 0.5}
    assert fidelity.density_coverage(modes, REAL)["coverage"] == 0.5


def test_balls_of_a_constant_set():
    constant = np.full((9, 5), 0.1)
    assert fidelity.precision_recall(constant, constant) == {"precision": 1, "recall": 1}
    assert fidelity.precision_recall(constant, FAKE)["precision"] == 0
    assert fidelity.density_coverage(constant, constant)["coverage"] == 1
    assert fidelity.density_coverage(constant, FAKE) == {"density": 0, "coverage": 0}
    with pytest.raises(
        ValueError, match="the real features: at least 4 samples are needed, there are 3"
    ):
        fidelity.precision_recall(REAL[:3], FAKE)
    with pytest.raises(
        ValueError, match="the generated features: at least 6 samples are needed, there are 5"
    ):
        fidelity.density_coverage(REAL, FAKE[:5])


# Inception score


def test_inception_score_of_known_logits():
    sure = 1e4 * np.tile(np.eye(7), (20, 1))
    assert fidelity.inception_score(sure) == pytest.approx({"value": 7, "std": 0}, abs=1e-9)
    even = fidelity.inception_score(sure[:, ::-1] * 0 + 3)
    assert even == pytest.approx({"value": 1, "std": 0}, abs=1e-9)
    one_class_a_split = fidelity.inception_score(np.repeat(sure[:7], 10, 0), splits=7)
    assert one_class_a_split["value"] == pytest.approx(1)


def test_inception_score_of_parts():
    logits = RNG.normal(size=(53, 6)) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    parts = [p[:17], p[17:35], p[35:]]
    scores = [
        np.exp(np.mean([(row * np.log(row / part.mean(0))).sum() for row in part]))
        for part in parts
    ]
    found = fidelity.inception_score(logits, splits=3)
    assert found == pytest.approx({"value": np.mean(scores), "std": np.std(scores)}, rel=1e-12)
    with pytest.raises(ValueError, match="at least 10 samples are needed, there are 9"):
        fidelity.inception_score(logits[:9])
