"""Does the embedding of a picture find its caption, and the other way round?

For captions without a grammar, which have no exact score.
Embeddings of pictures and captions must lie in one space: that of a CLIP, or of the probe of
evaluation/probe.py.
"""

from collections.abc import Sequence
from math import comb

import numpy as np
from jaxtyping import Bool, Float

from t2i_jax.metrics.distances import checked, unit_length

RANKS = (1, 5, 10)
MIN_PAIRS = 10  # R@10 of fewer pairs is always 1
COSINE_TOLERANCE = 1e-9  # cosines that differ by less are equal
RESAMPLES = 1000


def recall(
    predicted: Float[np.ndarray, "N E"],
    embeddings: Float[np.ndarray, "M E"],
    captions: Sequence[str],
    seed: int = 0,
) -> dict:
    """Return R@1, R@5 and R@10 by cosine among N pairs of a picture and its caption.

    The report is {"candidates": N, "captions_of_pictures": {"R@1": ..., ...},
    "pictures_of_captions": {...}}. Each number is {"value", "low", "high", "n", "chance"}: the
    share of queries with a right answer among the first k, its 95 % bootstrap interval (1,000
    resamples), and what a random order would give.

    Pairs with equal captions are all right answers for one another. Ties are in random order: a
    query counts with the probability that a right answer is among the first k. Predictions that
    are the same for all pictures therefore have exactly the chance level.

    predicted: embeddings predicted from the pictures.
    embeddings: those of the captions.
    captions: their text, which tells which pairs are equal.

    Raises ValueError for different lengths, fewer than MIN_PAIRS pairs, NaN, infinity, or a row of
    zeros.
    """
    names = ("the predicted embeddings", "the embeddings")
    x, y = checked_pairs(predicted, embeddings, names)
    if len(captions) != len(x):
        raise ValueError(
            f"{len(x):,} pictures and {len(captions):,} captions: there must be as many"
        )
    cosine = unit_length(x, names[0]) @ unit_length(y, names[1]).T
    number = {caption: i for i, caption in enumerate(captions)}
    numbers = np.array([number[caption] for caption in captions])
    right = numbers[:, None] == numbers
    rng = np.random.default_rng(seed)
    return {
        "candidates": len(x),
        "captions_of_pictures": _recalls(cosine, right, rng),
        "pictures_of_captions": _recalls(cosine.T, right, rng),
    }


def clip_score(
    image_embeddings: Float[np.ndarray, "N E"],
    text_embeddings: Float[np.ndarray, "M F"],
    seed: int = 0,
) -> dict:
    """Return the mean of 100 max(cosine, 0) over pairs: {"value", "low", "high", "n"}.

    low and high are the 95 % bootstrap interval. The scale from 0 to 100 is the usual one; arXiv
    2104.08718 has a weight of 2.5 instead of 100. Only embeddings of one CLIP can be compared.

    Raises ValueError for different shapes, no pair, NaN, infinity or a row of zeros.
    """
    names = ("the image embeddings", "the text embeddings")
    pair = [
        unit_length(checked(x, name, 1), name)
        for x, name in zip((image_embeddings, text_embeddings), names, strict=True)
    ]
    if pair[0].shape != pair[1].shape:
        raise ValueError(
            f"embeddings of pictures {pair[0].shape} and of texts {pair[1].shape}: "
            "the shapes must be the same"
        )
    cosine = (pair[0] * pair[1]).sum(1)
    return _mean_interval(100 * np.maximum(cosine, 0), np.random.default_rng(seed))


def hit_probability(
    scores: Float[np.ndarray, "Q M"], right: Bool[np.ndarray, "Q M"], k: int
) -> Float[np.ndarray, "Q"]:
    """Return the probability that a right answer is among the k highest scores of its row.

    Ties are in random order. Every row has a right answer.
    """
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    tied = abs(scores - best) <= COSINE_TOLERANCE
    above = ((scores > best) & ~tied).sum(1)
    rights, wrongs = (tied & right).sum(1), (tied & ~right).sum(1)
    return np.array(
        [_chance(int(r), int(w), k - int(a)) for r, w, a in zip(rights, wrongs, above, strict=True)]
    )


def checked_pairs(
    a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M E"], names: tuple[str, str]
) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N E"]]:
    """Return both as float64.

    names: what to call them in messages. Raises ValueError for different lengths, fewer than
    MIN_PAIRS rows, NaN or infinity.
    """
    a, b = (checked(rows, name, MIN_PAIRS) for rows, name in zip((a, b), names, strict=True))
    if len(a) != len(b):
        raise ValueError(
            f"{len(a):,} rows of {names[0]} and {len(b):,} of {names[1]}: there must be as many"
        )
    return a, b


def _recalls(scores, right, rng):
    reports = {}
    for k in RANKS:
        report = _mean_interval(hit_probability(scores, right, k), rng)
        chance = np.mean([_chance(int(r), right.shape[1] - int(r), k) for r in right.sum(1)])
        reports[f"R@{k}"] = {**report, "chance": float(chance)}
    return reports


def _chance(rights, wrongs, k):
    """Return the probability that a right answer is among the first k of all in random order."""
    return 1.0 - comb(wrongs, k) / comb(rights + wrongs, k) if 0 < k <= wrongs else float(k > 0)


def _mean_interval(values, rng):
    """Return the mean of numbers [n] and its 95 % percentile bootstrap interval."""
    n = len(values)
    means = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) @ values / n
    low, high = np.percentile(means, (2.5, 97.5))
    return {"value": float(np.mean(values)), "low": float(low), "high": float(high), "n": n}
