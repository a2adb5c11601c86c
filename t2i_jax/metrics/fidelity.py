"""How similar are two sets of pictures? Statistics of their features.

Computed on the host, in float64 and bounded memory. All are pure functions of arrays of features
[N, D] and know nothing of pictures or extractors. Whoever prints a number names the extractor: a
Frechet distance is called FID only with the FID variant of Inception-v3.
"""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, logsumexp

from t2i_jax.core.types import AnyArray
from t2i_jax.metrics.distances import (
    checked,
    checked_pair,
    nearest,
    squared_distances,
    tiles,
    unit_length,
)

BLOCK_ROWS = 512  # rows that are summed at once
# Relative: squared distances that differ by less are equal, so that a copy is on the edge of the
# same ball as its original.
EDGE_TOLERANCE = 1e-9
CMMD_SIGMA = 10
# Names for messages.
FIRST_SECOND = ("the first features", "the second features")
REAL_GENERATED = ("the real features", "the generated features")


class Moments(NamedTuple):
    """Mean and covariance of `count` features, in float64. The covariance divides by count - 1."""

    count: int
    mean: Float[np.ndarray, "D"]
    covariance: Float[np.ndarray, "D D"]


def moments(chunks: Iterable[np.ndarray]) -> Moments:
    """Return mean and covariance of any number of features, given as chunks [n, D].

    Memory is BLOCK_ROWS x D + D x D. The rows are put into blocks of BLOCK_ROWS before anything is
    summed, so the same rows in the same order give the same bits for any chunks.

    Raises ValueError if a row holds NaN or infinity (with the first such row, and how many there
    are in its block), if the chunks differ in D, or if there are fewer than two rows.
    """
    count, mean, scatter = 0, np.zeros(()), np.zeros(())
    for rows in _blocks(chunks):
        rows = checked(rows, first=count)
        n, total, centre = len(rows), count + len(rows), rows.mean(0)
        # Sums around the means, so that no large numbers cancel.
        away, apart = rows - centre, centre - mean
        mean = mean + apart * (n / total)
        scatter = scatter + away.T @ away + np.outer(apart, apart) * (count * n / total)
        count = total
    if count < 2:
        raise ValueError(f"a covariance needs at least two features, there are {count}")
    return Moments(count, mean, scatter / (count - 1))


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return |mean_a - mean_b|² + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), at least 0.

    The trace of the root is the sum of the singular values of C_a^(1/2) C_b^(1/2). This takes roots
    of symmetric matrices only, so covariances may be singular. Source: arXiv 1706.08500, equation
    6. Raises ValueError if the dimensions differ, or if a count does not exceed them.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"features of {len(a.mean):,} and of {len(b.mean):,} dimensions: "
            "use one extractor for both"
        )
    fewest, dimensions = min(a.count, b.count), len(a.mean)
    if fewest <= dimensions:
        raise ValueError(
            "a Frechet distance needs more samples than dimensions, else the covariance is "
            "singular and the distance says more of the count than of the pictures: there are "
            f"{fewest:,} samples of {dimensions:,} dimensions. "
            "Use KID, which is unbiased at any count"
        )
    shared = np.linalg.svd(_root(a.covariance) @ _root(b.covariance), compute_uv=False).sum()
    away = a.mean - b.mean
    return max(
        0.0, float(away @ away + np.trace(a.covariance) + np.trace(b.covariance) - 2 * shared)
    )


def kid(a: Float[AnyArray, "N D"], b: Float[AnyArray, "M E"], degree: int = 3) -> dict[str, float]:
    """Return the kernel inception distance: {"value", "standard_error", "low", "high"}.

    "value": the unbiased estimate of MMD² with the kernel (x·y / D + 1)^degree (arXiv 1801.01401,
        section 4). It is taken over all pairs instead of random subsets, which has the same
        expectation and less variance. It may be negative.
    "standard_error": the root of an unbiased estimate of the variance, from Hoeffding's
        decomposition of the U-statistic (compare arXiv 1906.02104). If both distributions are the
        same, it is about a tenth too large.
    "low", "high": the value plus and minus 1.96 standard errors. In simulations with 200 and 150
        samples, 93 to 99 % of the intervals contained the truth; with 40 and 25, 89 % or more.

    Raises ValueError for fewer than 4 samples, which have no such estimate, NaN, or different
    dimensions.
    """
    a, b = checked_pair(a, b, FIRST_SECOND, least=4)
    return _interval(*_unbiased_mmd(a, b, partial(_polynomial, degree=degree)))


def kid_of_pairs(
    a: Float[AnyArray, "N D"], b: Float[AnyArray, "M E"], degree: int = 3
) -> dict[str, float]:
    """Return KID, as `kid` does, of two sets whose rows belong together in pairs.

    A restored picture is like its own original, more than like another picture of the same kind.
    Of such sets, `kid` is too small. This estimate leaves out the kernel of each row and its
    partner, and stays unbiased (Gretton et al., JMLR 2012, lemma 6). Equal sets have 0. The
    standard error is that of the jackknife.

    Raises ValueError as `kid` does, and for sets of different sizes.
    """
    a, b = checked_pair(a, b, FIRST_SECOND, least=4)
    if len(a) != len(b):
        raise ValueError(f"{len(a):,} and {len(b):,} features: pairs need as many of both")
    kernel, n = partial(_polynomial, degree=degree), len(a)
    rows, columns, _ = _sums(kernel, a, b)
    partner = ((a * b).sum(1) / a.shape[1] + 1) ** degree
    sums = _sums(kernel, a)[0] + _sums(kernel, b)[0] - rows - columns + 2 * partner
    value = float(sums.sum() / (n * (n - 1)))
    without_one = (sums.sum() - 2 * sums) / ((n - 1) * (n - 2))
    return _interval(value, float((n - 1) * np.var(without_one)))


def kid_of_subsets(
    a: Float[AnyArray, "N D"],
    b: Float[AnyArray, "M E"],
    subsets: int = 100,
    size: int = 1000,
    degree: int = 3,
    seed: int = 2020,
) -> dict[str, float]:
    """Return KID as most publications compute it: {"value", "std"} over random subsets of `size`.

    "std" is the standard deviation of one subset, not the error of the mean. The subsets are those
    of torch-fidelity for the same seed. Raises ValueError as `kid` does, and for fewer than `size`
    samples.
    """
    a, b = checked_pair(a, b, FIRST_SECOND, least=max(size, 4))
    rng = np.random.RandomState(seed)
    kernel, values = partial(_polynomial, degree=degree), []
    for _ in range(subsets):
        rows, columns = (rng.choice(len(features), size, replace=False) for features in (a, b))
        values.append(_unbiased_mmd(a[rows], b[columns], kernel)[0])
    return {"value": float(np.mean(values)), "std": float(np.std(values))}


def cmmd(a: Float[AnyArray, "N D"], b: Float[AnyArray, "M E"]) -> float:
    """Return 1000 MMD² with a Gaussian kernel of sigma 10 on features of unit length.

    As in the paper's code, this is the V-statistic. It includes pairs of a row with itself, so it
    is never negative, and a little too large for few samples. The paper's numbers are of CLIP
    ViT-L/14 (336 px) embeddings; other embeddings have another scale. Source: arXiv 2401.09603.

    Raises ValueError for NaN, a zero row, or different dimensions.
    """
    pair = checked_pair(a, b, FIRST_SECOND)
    a, b = (unit_length(x, name) for x, name in zip(pair, FIRST_SECOND, strict=True))
    within_a, within_b, between = (
        _sums(_gaussian, x, y)[0].mean() / len(y) for x, y in ((a, a), (b, b), (a, b))
    )
    return float(1000 * (within_a + within_b - 2 * between))


def precision_recall(
    real: Float[AnyArray, "N D"], fake: Float[AnyArray, "M E"], k: int = 3
) -> dict[str, float]:
    """Return improved precision and recall of generated features `fake`.

    "precision": the share of generated samples that lie in the ball of a real one. The radius of
        the ball is the distance to the k-th nearest real neighbour.
    "recall": the same with the roles exchanged.

    Balls include their edge. Around more than k copies of a sample the ball is a point, which
    contains further copies. A constant set is therefore precise and recalled if the other set
    contains the same constant.

    Source: arXiv 1904.06991, equations 1 and 2. Raises ValueError for fewer than k + 1 samples,
    NaN, or different dimensions.
    """
    real, fake = checked_pair(real, fake, REAL_GENERATED, least=k + 1)
    return {"precision": _inside(fake, real, k), "recall": _inside(real, fake, k)}


def density_coverage(
    real: Float[AnyArray, "N D"], fake: Float[AnyArray, "M E"], k: int = 5
) -> dict[str, float]:
    """Return density and coverage of generated features `fake`.

    "density": in how many real balls a generated sample lies, divided by k. It is 1 for the real
        samples themselves, and may exceed 1.
    "coverage": the share of real balls that contain a generated sample.

    Balls are those of `precision_recall`, but without their edge, as in the paper's code. They
    always contain their centre, so that a copy of a constant set is covered, and nothing else.

    Source: arXiv 2002.09797, section 3. Raises ValueError for fewer than k + 1 samples, NaN, or
    different dimensions.
    """
    real, fake = checked_pair(real, fake, REAL_GENERATED, least=k + 1)
    edge, inside = _radii(real, k) ** 2 * (1 - EDGE_TOLERANCE), np.zeros(len(real))
    for i, j in tiles(len(real), len(fake)):
        squared = squared_distances(real[i], fake[j])
        inside[i] += ((squared < edge[i, None]) | (squared == 0)).sum(1)
    return {
        "density": float(inside.sum() / (k * len(fake))),
        "coverage": float((inside > 0).mean()),
    }


def inception_score(logits: Float[AnyArray, "N C"], splits: int = 10) -> dict[str, float]:
    """Return {"value", "std"} of exp of the mean KL divergence of p(class | picture) from p(class).

    They are mean and standard deviation over `splits` parts of consecutive rows, so shuffle rows
    that are in an order. The value is between 1 and C. Only with the 1,000 or 1,008 classes of
    Inception is it the Inception Score. Source: arXiv 1606.03498, section 4.

    Raises ValueError for fewer samples than splits, or NaN.
    """
    logits = log_softmax(checked(logits, "logits", least=splits), axis=1)
    edges = [i * len(logits) // splits for i in range(splits + 1)]
    scores = []
    for i in range(splits):
        part = logits[edges[i] : edges[i + 1]]
        marginal = logsumexp(part, axis=0) - np.log(len(part))
        scores.append(np.exp((np.exp(part) * (part - marginal)).sum(1).mean()))
    return {"value": float(np.mean(scores)), "std": float(np.std(scores))}


def _blocks(chunks):
    """Yield the rows of all chunks in blocks of BLOCK_ROWS; the last one may be shorter.

    Each block overwrites the one before.
    """
    block, filled = np.empty((BLOCK_ROWS, 0)), 0
    for i, chunk in enumerate(map(np.asarray, chunks)):
        if chunk.ndim != 2 or (i and chunk.shape[1] != block.shape[1]):
            asked = f"[n, {block.shape[1]}]" if i else "[n, D]"
            raise ValueError(
                f"chunks of features must be of shape {asked}, one is {list(chunk.shape)}"
            )
        if not i:
            block = np.empty((BLOCK_ROWS, chunk.shape[1]))
        while len(chunk):
            room = BLOCK_ROWS - filled
            part, chunk = chunk[:room], chunk[room:]
            block[filled : filled + len(part)] = part
            filled += len(part)
            if filled == BLOCK_ROWS:
                yield block
                filled = 0
    if filled:
        yield block[:filled]


def _root(covariance):
    """Return the root of a symmetric matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _polynomial(x, y, degree):
    return (x @ y.T / x.shape[1] + 1) ** degree


def _gaussian(x, y):
    """Return the Gaussian kernel minus 1.

    The constant cancels in MMD². Without it, the digits of a kernel as wide as this are kept.
    """
    return np.expm1(-squared_distances(x, y) / (2 * CMMD_SIGMA**2))


def _sums(kernel, a, b=None):
    """Return row sums [N], column sums [M] and the sum of squares of kernel(a, b) [N, M].

    Without b, they are of kernel(a, a) without its diagonal.
    """
    other = a if b is None else b
    rows, columns, squares = np.zeros(len(a)), np.zeros(len(other)), 0.0
    for i, j in tiles(len(a), len(other)):
        part = kernel(a[i], other[j])
        if b is None and i == j:
            np.fill_diagonal(part, 0)
        rows[i] += part.sum(1)
        columns[j] += part.sum(0)
        squares += (part**2).sum()
    return rows, columns, squares


def _interval(value: float, variance: float) -> dict[str, float]:
    error = float(np.sqrt(variance))
    low, high = value - 1.96 * error, value + 1.96 * error
    return {"value": value, "standard_error": error, "low": low, "high": high}


def _unbiased_mmd(a, b, kernel):
    """Return unbiased estimates of MMD² and of its variance.

    The kernel of two samples is the sum of a mean, an effect of each sample alone (u and v below),
    and an interaction, all uncorrelated. The variance of MMD² is therefore
    4/N var u + 4/M var v + 2/(N (N-1)) g_aa + 2/(M (M-1)) g_bb + 4/(NM) g_ab,
    where g are the mean squared interactions. The row sums contain u, v and some of g, which is
    subtracted. An estimate below the part of the interactions is replaced by that part.
    """
    n, m = len(a), len(b)
    (rows_a, _, squares_a), (rows_b, _, squares_b) = _sums(kernel, a), _sums(kernel, b)
    between_a, between_b, squares_ab = _sums(kernel, a, b)
    total = between_a.sum()
    value = rows_a.sum() / (n * (n - 1)) + rows_b.sum() / (m * (m - 1)) - 2 * total / (n * m)
    g_aa, g_bb = _interaction(rows_a, squares_a), _interaction(rows_b, squares_b)
    g_ab = squares_ab - (between_a**2).sum() / m - (between_b**2).sum() / n + total**2 / (n * m)
    g_ab = max(0.0, g_ab / ((n - 1) * (m - 1)))
    var_u = np.var(rows_a / (n - 2) - between_a / m, ddof=1) - g_aa / (n - 2) - g_ab / m
    var_v = np.var(rows_b / (m - 2) - between_b / n, ddof=1) - g_bb / (m - 2) - g_ab / n
    alone = 4 / n * var_u + 4 / m * var_v
    together = 2 / (n * (n - 1)) * g_aa + 2 / (m * (m - 1)) * g_bb + 4 / (n * m) * g_ab
    return float(value), float(max(0.0, alone) + together)


def _interaction(rows, squares):
    """Return the mean squared interaction of one set: the U-centred sum of squares.

    It is unbiased (arXiv 1310.2926).
    """
    n = len(rows)
    centred = squares - 2 / (n - 2) * (rows**2).sum() + rows.sum() ** 2 / ((n - 1) * (n - 2))
    return max(0.0, centred / (n * (n - 3)))


def _radii(features, k):
    """Return the distance of each row to its k-th nearest other row, [N]."""
    return nearest(features, features, k + 1)[0][:, k]


def _inside(samples, centres, k):
    """Return the share of samples in the ball of any centre, edges included."""
    edge, inside = _radii(centres, k) ** 2 * (1 + EDGE_TOLERANCE), np.zeros(len(samples), bool)
    for i, j in tiles(len(samples), len(centres)):
        inside[i] |= (squared_distances(samples[i], centres[j]) <= edge[j]).any(1)
    return float(inside.mean())
