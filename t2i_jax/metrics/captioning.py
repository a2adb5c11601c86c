"""Are the captions that a model writes true? Exact for `shapes`, shared words for all others."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from t2i_jax.core.types import Pictures
from t2i_jax.data.shapes import KINDS
from t2i_jax.metrics.alignment import parse_caption, score_picture, share_interval

RESAMPLES = 1000
# "A below B" means "B above A".
REVERSED_RELATIONS = {"below": "above", "right of": "left of"}


def meaning(caption: str) -> tuple:
    """Return (relation, objects): equal for captions of `shapes` that mean the same.

    Paraphrases mean the same, and so do "A right of B" and "B left of A", and objects without a
    relation in another order. Raises ValueError if the caption is not in the grammar.
    """
    parsed = parse_caption(caption)
    if parsed.relation in REVERSED_RELATIONS:
        return REVERSED_RELATIONS[parsed.relation], tuple(parsed.objects[::-1])
    objects = parsed.objects if parsed.relation else sorted(parsed.objects)
    return parsed.relation, tuple(objects)


def score(found: Sequence[str], true: Sequence[str], images: Pictures, seed: int = 0) -> dict:
    """Score captions that a model wrote for pictures [R, R, 3]. Returns a report in plain data.

    "agrees": the share of captions that are true of their picture, as alignment.score_picture reads
        it: they name all objects that are there, and a relation that they state holds.
    "exact": the share of captions with the `meaning` of the true caption. This is stricter, because
        two objects may be named with or without their relation.
    "kinds": {kind of the true caption: the share that agrees}.
    "unparsed": the share of captions that are not in the grammar. They count as wrong above.

    All but the last are {"value", "low", "high", "n"} with a 95 % bootstrap interval (1,000
    resamples).

    Raises ValueError if there are no captions, not as many of each, or a true caption is not in the
    grammar.
    """
    _check_counts(found, true, images)
    asked = [parse_caption(caption).kind for caption in true]
    meanings = [_meaning(caption) for caption in found]
    pairs = list(zip(meanings, found, images, strict=True))
    agrees = [
        what is not None and bool(score_picture(image, caption)["exact"])
        for what, caption, image in pairs
    ]
    exact = [what == meaning(caption) for what, caption in zip(meanings, true, strict=True)]
    rng = np.random.default_rng(seed)
    kinds = {kind: [a for a, k in zip(agrees, asked, strict=True) if k == kind] for kind in KINDS}
    return {
        "agrees": share_interval(agrees, rng),
        "exact": share_interval(exact, rng),
        "kinds": {kind: share_interval(values, rng) for kind, values in kinds.items() if values},
        "unparsed": float(np.mean([what is None for what in meanings])),
    }


def word_f1(found: Sequence[str], true: Sequence[str]) -> Float[np.ndarray, "N"]:
    """Return the F1 score of the words of each caption, in any order and case.

    It is the harmonic mean of precision and recall against the true caption: 1 for the same words,
    0 for none in common. Two empty captions are the same.

    Raises ValueError if there are no captions, or not as many of each.
    """
    _check_counts(found, true)
    return np.array([_f1(_words(a), _words(b)) for a, b in zip(found, true, strict=True)])


def mean_interval(values: Float[np.ndarray, "N"], seed: int = 0) -> dict:
    """Return {"value", "low", "high", "n"}: the mean of n numbers and its interval.

    low and high are the 95 % percentile bootstrap interval (1,000 resamples).
    """
    again = np.random.default_rng(seed).choice(values, (RESAMPLES, len(values))).mean(1)
    low, high = np.percentile(again, (2.5, 97.5))
    return {"value": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}


def _check_counts(*parts) -> None:
    counts = [len(part) for part in parts]
    if min(counts) != max(counts) or not counts[0]:
        raise ValueError(
            f"{' and '.join(map(str, counts))} captions or pictures: "
            "as many of each are needed, at least one"
        )


def _meaning(caption):
    try:
        return meaning(caption)
    except ValueError:
        return None


def _words(caption):
    """Count the words: runs of anything but space and ASCII punctuation.

    `\\w` would split words of some scripts, and lose emoji.
    """
    return Counter(re.findall(r"[^\s!-/:-@\[-`{-~]+", caption.lower()))


def _f1(found, true):
    total = found.total() + true.total()
    return 2 * (found & true).total() / total if total else 1.0
