"""Do variations of a picture show what the picture shows? Exact scores, for `shapes`."""

import numpy as np

from t2i_jax.evaluation.column import Column, at, format_share
from t2i_jax.evaluation.measure import Measure, Trial
from t2i_jax.evaluation.measures.alignment import derangement
from t2i_jax.metrics import alignment


def applies(trial: Trial) -> None:
    """Raise ValueError for a model without variations, or if the captions have no grammar."""
    if "vary" not in trial.pipe.family.abilities:
        raise ValueError("this model draws no variations of pictures")
    if not alignment.can_score(trial.captions):
        raise ValueError("these captions have no grammar, so no exact score")


def usual(pipe, source) -> bool:
    """Return True for models that draw variations."""
    return "vary" in pipe.family.abilities


def run(trial: Trial) -> dict:
    """Return the exact scores of one variation of each true picture, by the picture's caption.

    "shuffled" scores them by the captions of other pictures: what any picture reaches.
    """
    varied = trial.pipe.vary(list(trial.true), seed=trial.seed).images
    pictures = np.stack([np.asarray(image) for image in varied])
    seen = [alignment.read_picture(image) for image in pictures]
    others = [trial.captions[i] for i in derangement(len(trial.captions))]
    return {
        "own": alignment.score(pictures, trial.captions, seen=seen),
        "shuffled": alignment.score(pictures, others, seen=seen),
    }


def lines(report: dict, setting: dict) -> list[str]:
    """Return the share of variations that show the caption, and what of it they keep."""
    del setting
    own, others = report["own"]["atoms"], report["shuffled"]["atoms"]
    kept = ", ".join(
        f"{name} {own[name]['value']:.3f} ({others[name]['value']:.3f} of other pictures)"
        for name in own
    )
    strict = format_share(report["own"]["strict"])
    return [f"variations that show their picture's caption: strict {strict}; they keep {kept}"]


COLUMNS = (
    Column(
        title="variations",
        value=at("variations", "own", "strict", "value"),
        interval=at("variations", "own", "strict"),
        format="{:.3f}",
        better=1,
        meaning="variations of true pictures that show the picture's caption (share, strict)",
        order=57,
        headline="Most variations true to their picture",
    ),
)
MEASURE = Measure(
    name="variations",
    order=75,
    applies=applies,
    usual=usual,
    run=run,
    lines=lines,
    columns=COLUMNS,
)
