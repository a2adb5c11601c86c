"""Are drawn pictures of the class that was asked for, and which classes are never drawn? Of labels that a classifier gave."""

from collections.abc import Sequence

import numpy as np

from t2i_jax.metrics.alignment import interval


def accuracy(recognised: Sequence[int], asked: Sequence[int], classes: Sequence[str], seed: int = 0) -> dict:
    """How often pictures are recognised as the class that was asked for; both [N], places in `classes`.

    {"accuracy": {"value", "low", "high", "n"} with a 95 % bootstrap interval (1,000 resamples); "recall": {class: the share
    of its pictures recognised as it}, for classes that were asked for; "confusion": [[count]], a row a class that was asked
    for, a column one that was recognised; "missing": classes that were asked for and in none of whose pictures recognised}.
    Raises ValueError if there are no pictures, not as many labels, or no such class.
    """
    recognised, asked = _checked(recognised, classes), _checked(asked, classes)
    if len(recognised) != len(asked):
        raise ValueError(f"{len(recognised):,} pictures and {len(asked):,} classes that were asked for: there must be as many")
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (asked, recognised), 1)
    recall = {
        name: float(row[i] / row.sum()) for i, (name, row) in enumerate(zip(classes, confusion, strict=True)) if row.sum()
    }
    return {
        "accuracy": interval(recognised == asked, np.random.default_rng(seed)),
        "recall": recall,
        "confusion": confusion.tolist(),
        "missing": [name for name, share in recall.items() if share == 0],
    }


def histogram(recognised: Sequence[int], classes: Sequence[str]) -> dict:
    """What a model draws that is not told a class; recognised [N], places in `classes`.

    {"n", "share": {class: of the pictures recognised as it}, "missing": classes in no picture recognised}. Raises ValueError
    if there are no pictures or no such class.
    """
    counts = np.bincount(_checked(recognised, classes), minlength=len(classes))
    share = {name: float(count / counts.sum()) for name, count in zip(classes, counts, strict=True)}
    return {"n": int(counts.sum()), "share": share, "missing": [name for name, part in share.items() if part == 0]}


def _checked(labels, classes):
    labels = np.asarray(labels)
    if not len(labels):
        raise ValueError("there is no picture whose class could be right")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"labels from {labels.min()} to {labels.max()} for {len(classes)} classes")
    return labels
