"""Is what a model says of a picture true? Exact scores for captions of `shapes`, and shared words for all others."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from t2i_jax.data.shapes import KINDS
from t2i_jax.metrics.alignment import interval, parse_caption, score_picture

RESAMPLES = 1000

REVERSED = {"below": "above", "right of": "left of"}


def meaning(caption: str) -> tuple:
    """What a caption of `shapes` says, the same for all that say the same: (relation, things).

    Paraphrases mean the same, and so do "A right of B" and "B left of A", and things in another order. Raises ValueError if
    it is not in the grammar.
    """
    said = parse_caption(caption)
    if said.relation in REVERSED:
        return REVERSED[said.relation], tuple(said.things[::-1])
    return said.relation, tuple(said.things if said.relation else sorted(said.things))


def score(found: Sequence[str], true: Sequence[str], images: Sequence[np.ndarray], seed: int = 0) -> dict:
    """Captions that a model found for pictures, uint8 [N, R, R, 3], of which `true` are the captions; a report in plain data.

    {"agrees": the share that is true of its picture, as alignment.score_picture reads it: all that is there is named as it is,
    and a relation that is said holds; "exact": the share with the `meaning` of the true caption, which is stricter, as two
    things that happen to stand so may be said with or without their relation; "kinds": {kind of the true caption: share that
    agrees}; "unparsed": the share that is not in the grammar, and therefore wrong in all others}. But for the last, each is
    {"value", "low", "high", "n"} with a 95 % bootstrap interval (1,000 resamples).
    Raises ValueError if there are none, not as many of each, or a true caption is not in the grammar.
    """
    _check(found, true, images)
    asked = [parse_caption(caption).kind for caption in true]
    meanings = [_meaning(caption) for caption in found]
    pairs = list(zip(meanings, found, images, strict=True))
    agrees = [what is not None and score_picture(image, caption)["exact"] for what, caption, image in pairs]
    exact = [what == meaning(caption) for what, caption in zip(meanings, true, strict=True)]
    rng = np.random.default_rng(seed)
    kinds = {kind: [a for a, k in zip(agrees, asked, strict=True) if k == kind] for kind in KINDS}
    return {
        "agrees": interval(agrees, rng),
        "exact": interval(exact, rng),
        "kinds": {kind: interval(values, rng) for kind, values in kinds.items() if values},
        "unparsed": float(np.mean([what is None for what in meanings])),
    }


def word_f1(found: Sequence[str], true: Sequence[str]) -> np.ndarray:
    """How many words each caption shares with the true one, float [N]: the harmonic mean of precision and recall of its words,
    in any order and case; 1 for the same words, 0 for none in common. Two empty captions are the same.

    Raises ValueError if there are none, or not as many of each.
    """
    _check(found, true)
    return np.array([_f1(_words(a), _words(b)) for a, b in zip(found, true, strict=True)])


def mean_interval(values: np.ndarray, seed: int = 0) -> dict:
    """{"value", "low", "high", "n"}: the mean of numbers [N] and its 95 % percentile bootstrap interval (1,000 resamples)."""
    again = np.random.default_rng(seed).choice(values, (RESAMPLES, len(values))).mean(1)
    low, high = np.percentile(again, (2.5, 97.5))
    return {"value": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}


def _check(*parts) -> None:
    counts = [len(part) for part in parts]
    if min(counts) != max(counts) or not counts[0]:
        raise ValueError(f"{' and '.join(map(str, counts))} captions or pictures: as many of each are needed, at least one")


def _meaning(caption):
    try:
        return meaning(caption)
    except ValueError:
        return None


def _words(caption):
    """Runs of anything but space and ASCII punctuation: `\\w` would part words of some scripts, and lose emoji."""
    return Counter(re.findall(r"[^\s!-/:-@\[-`{-~]+", caption.lower()))


def _f1(found, true):
    total = found.total() + true.total()
    return 2 * (found & true).total() / total if total else 1.0
