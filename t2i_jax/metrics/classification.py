"""Do drawn pictures show the class that was asked for, and which classes are never drawn?

Computed from the labels that a classifier recognised.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from t2i_jax.metrics.alignment import share_interval

Labels = Sequence[int] | Int[np.ndarray, "N"]


def accuracy(recognised: Labels, asked: Labels, classes: Sequence[str], seed: int = 0) -> dict:
    """Return how often pictures are recognised as the class that was asked for.

    "accuracy": {"value", "low", "high", "n"} with a 95 % bootstrap interval (1,000 resamples).
    "recall": {class: the share of its pictures that are recognised as it}, for the classes that
        were asked for.
    "confusion": [[count]], with a row for each class that was asked for, and a column for each
        class that was recognised.
    "missing": the classes that were asked for, but not recognised in any of their pictures.

    recognised, asked: indices into `classes`, one per picture.

    Raises ValueError if there are no pictures, not as many labels, or an unknown class.
    """
    recognised, asked = _checked(recognised, classes), _checked(asked, classes)
    if len(recognised) != len(asked):
        raise ValueError(
            f"{len(recognised):,} pictures and {len(asked):,} classes that were asked for: "
            "there must be as many"
        )
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (asked, recognised), 1)
    recall = {
        name: float(row[i] / row.sum())
        for i, (name, row) in enumerate(zip(classes, confusion, strict=True))
        if row.sum()
    }
    return {
        "accuracy": share_interval(recognised == asked, np.random.default_rng(seed)),
        "recall": recall,
        "confusion": confusion.tolist(),
        "missing": [name for name, share in recall.items() if share == 0],
    }


def histogram(recognised: Labels, classes: Sequence[str]) -> dict:
    """Return what an unconditional model draws.

    "n": the number of pictures.
    "share": {class: the share of the pictures that are recognised as it}.
    "missing": the classes that are recognised in no picture.

    recognised: indices into `classes`, one per picture.

    Raises ValueError if there are no pictures or an unknown class.
    """
    counts = np.bincount(_checked(recognised, classes), minlength=len(classes))
    share = {name: float(count / counts.sum()) for name, count in zip(classes, counts, strict=True)}
    return {
        "n": int(counts.sum()),
        "share": share,
        "missing": [name for name, part in share.items() if part == 0],
    }


def _checked(labels, classes) -> np.ndarray:
    labels = np.asarray(labels)
    if not len(labels):
        raise ValueError("there is no picture whose class could be right")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"labels from {labels.min()} to {labels.max()} for {len(classes)} classes")
    return labels
