"""How well a number, such as a loss, tells the members of a set from others.

Plain numpy. Source: arXiv 2112.03570, which asks for the true positives at few false ones.
"""

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

FALSE_POSITIVES = 0.01
RESAMPLES = 1000


def score(members: Float[np.ndarray, "N"], others: Float[np.ndarray, "M"], seed: int = 0) -> dict:
    """Return how well a low number tells that an example is a member.

    {"auc": the probability that a member has the lower number of a member and another, ties
    counting half; "found": the share of members that are below all but 1 % of the others}. Both are
    {"value", "low", "high"} with a 95 % bootstrap interval (1,000 resamples of both sets).
    Guessing has 0.5 and 0.01. Raises ValueError for fewer than 100 of either.
    """
    if min(len(members), len(others)) < 1 / FALSE_POSITIVES:
        raise ValueError(
            f"{len(members)} training examples and {len(others)} others: at least 100 of each are "
            "needed to find members among 1 % of false ones"
        )
    rng = np.random.default_rng(seed)
    again = [
        _both(rng.choice(members, len(members)), rng.choice(others, len(others)))
        for _ in range(RESAMPLES)
    ]
    values, limits = _both(members, others), np.percentile(again, (2.5, 97.5), axis=0)
    return {
        name: {"value": float(value), "low": float(low), "high": float(high)}
        for name, value, low, high in zip(("auc", "found"), values, *limits, strict=True)
    }


def _both(members, others) -> tuple[float, float]:
    ranks = rankdata(np.concatenate([members, others]))[len(members) :]
    above = ranks.sum() - len(others) * (len(others) + 1) / 2  # pairs in which the other is higher
    threshold = np.quantile(others, FALSE_POSITIVES, method="lower")
    return above / (len(members) * len(others)), float(np.mean(members < threshold))
