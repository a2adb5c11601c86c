"""Can the caption be found by its picture, and the picture by its caption? For real pictures, which have no exact score.

A self-trained probe brings both into one space: linear, from image features to sentence embeddings, fitted to the
training split. It is no CLIP, and its numbers depend on that split: read them beside those of real held-out pictures.
"""

from collections.abc import Sequence
from math import comb
from typing import NamedTuple

import numpy as np

from t2i_jax.metrics.distances import checked, unit_length

PENALTIES = tuple(10.0**k for k in range(-5, 4))  # per training picture
RANKS = (1, 5, 10)
LEAST = 10  # pictures: a tenth of fewer is none, and R@10 of fewer says nothing
TIE = 1e-9  # cosines that differ by less are equal


class Probe(NamedTuple):
    """picture features [N, D] -> embeddings [N, E]: (features - mean) / scale @ weights + offset.   penalty: the chosen one."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    penalty: float


def fit(features: np.ndarray, embeddings: np.ndarray, seed: int = 0) -> Probe:
    """The self-trained probe: a ridge regression in float64 from features [N, D] of the training split to embeddings [N, E].

    Minimises |Y - X W|² / N + penalty |W|² for standardised X and centred Y, in closed form. The penalty is that of
    PENALTIES with the least squared error on a tenth of the pictures, drawn by `seed`, of a fit to the others; then all
    are fitted. Raises ValueError for different lengths, fewer than LEAST pictures, NaN or infinity.
    """
    x, y = _checked_pairs(features, embeddings, ("the image features", "the embeddings"))
    order = np.random.default_rng(seed).permutation(len(x))
    held, rest = np.split(order, [len(x) // 10])
    errors = [np.mean((predict(probe, x[held]) - y[held]) ** 2) for probe in _ridge(x[rest], y[rest], PENALTIES)]
    return next(_ridge(x, y, [PENALTIES[int(np.argmin(errors))]]))


def predict(probe: Probe, features: np.ndarray) -> np.ndarray:
    """Embeddings float64 [N, E] of picture features [N, D]."""
    return (features - probe.mean) / probe.scale @ probe.weights + probe.offset


def recall(probe: Probe, features: np.ndarray, embeddings: np.ndarray, captions: Sequence[str], seed: int = 0) -> dict:
    """R@1, R@5 and R@10 by cosine among N pairs of a picture's features [N, D] and its caption's embedding [N, E].

    {"label", "candidates": N, "captions_of_pictures": {"R@1": ..., ...}, "pictures_of_captions": {...}}, each {"value",
    "low", "high", "n", "chance"}: the share of queries with a right one among the first k, its 95 % bootstrap interval
    (1,000 resamples), and what a random order would give. The pairs of equal captions are all right for one another. Ties are
    in random order: a query counts with the probability that a right one comes among the first k, so a probe that
    says the same of all pictures has exactly the chance level.
    Raises ValueError for different lengths, fewer than LEAST pairs, NaN, infinity, or an embedding of zeros.
    """
    x, y = _checked_pairs(features, embeddings, ("the image features", "the embeddings"))
    if len(captions) != len(x):
        raise ValueError(f"{len(x):,} pictures and {len(captions):,} captions: there must be as many")
    cosine = unit_length(predict(probe, x), "the probe's predictions") @ unit_length(y, "the embeddings").T
    name = {caption: i for i, caption in enumerate(captions)}
    same = np.array([name[caption] for caption in captions])
    right = same[:, None] == same
    rng = np.random.default_rng(seed)
    return {
        "label": "self-trained probe",
        "candidates": len(x),
        "captions_of_pictures": _recalls(cosine, right, rng),
        "pictures_of_captions": _recalls(cosine.T, right, rng),
    }


def clip_score(image_embeddings: np.ndarray, text_embeddings: np.ndarray, seed: int = 0) -> dict:
    """{"value", "low", "high", "n"}: the mean of 100 max(cosine, 0) of pairs [N, D], with its bootstrap interval.

    That is how most print it (0 to 100); arXiv 2104.08718 has a weight of 2.5 in the place of 100. It says something only of
    embeddings of one CLIP. Raises ValueError for different shapes, no pair, NaN, infinity or a row of zeros.
    """
    names = ("the image embeddings", "the text embeddings")
    pair = [unit_length(checked(x, name, 1), name) for x, name in zip((image_embeddings, text_embeddings), names, strict=True)]
    if pair[0].shape != pair[1].shape:
        raise ValueError(f"embeddings of pictures {pair[0].shape} and of texts {pair[1].shape}: the shapes must be the same")
    cosine = (pair[0] * pair[1]).sum(1)
    return _mean_interval(100 * np.maximum(cosine, 0), np.random.default_rng(seed))


def ranked_within(scores: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
    """For each row of scores [Q, M]: the probability [Q] that one of its `right` [Q, M] is among the k highest, ties in
    random order. Every row has a right one."""
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    tied = abs(scores - best) <= TIE
    above = ((scores > best) & ~tied).sum(1)
    rights, wrongs = (tied & right).sum(1), (tied & ~right).sum(1)
    return np.array([_chance(int(r), int(w), k - int(a)) for r, w, a in zip(rights, wrongs, above, strict=True)])


def _checked_pairs(features, embeddings, names):
    x, y = (checked(rows, name, LEAST) for rows, name in zip((features, embeddings), names, strict=True))
    if len(x) != len(y):
        raise ValueError(f"{len(x):,} rows of {names[0]} and {len(y):,} of {names[1]}: there must be as many")
    return x, y


def _ridge(x, y, penalties):
    """A Probe for each penalty; all share one decomposition."""
    mean, offset = x.mean(0), y.mean(0)
    scale = x.std(0)
    scale = np.where(scale > 1e-12 * (1 + abs(mean)), scale, 1.0)  # a feature that never changes says nothing
    z = (x - mean) / scale
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    target = vectors.T @ (z.T @ (y - offset) / len(z))
    for penalty in penalties:
        weights = vectors @ (target / (np.maximum(values, 0) + penalty)[:, None])
        yield Probe(mean, scale, weights, offset, penalty)


def _recalls(scores, right, rng):
    reports = {}
    for k in RANKS:
        report = _mean_interval(ranked_within(scores, right, k), rng)
        chance = np.mean([_chance(int(r), right.shape[1] - int(r), k) for r in right.sum(1)])
        reports[f"R@{k}"] = {**report, "chance": float(chance)}
    return reports


def _chance(rights, wrongs, k):
    """The probability that one of the rights is among the first k of all in random order."""
    return 1.0 - comb(wrongs, k) / comb(rights + wrongs, k) if 0 < k <= wrongs else float(k > 0)


def _mean_interval(values, rng):
    """The mean of numbers [n] and its 95 % percentile bootstrap interval."""
    n = len(values)
    means = rng.multinomial(n, np.full(n, 1 / n), 1000) @ values / n
    low, high = np.percentile(means, (2.5, 97.5))
    return {"value": float(np.mean(values)), "low": float(low), "high": float(high), "n": n}
