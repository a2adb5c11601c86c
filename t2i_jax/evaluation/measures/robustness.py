"""How well does a model draw from misspelt and reworded captions?"""

import numpy as np

from t2i_jax.evaluation.column import Column, at
from t2i_jax.evaluation.draw import draw
from t2i_jax.evaluation.measure import Measure, Trial, require_pictures
from t2i_jax.metrics import alignment, robustness

MAX_CAPTIONS = 128  # drawn again under each noise


def applies(trial: Trial) -> None:
    """Raise ValueError without pictures, or if the captions have no grammar."""
    require_pictures(trial)
    if not alignment.can_score(trial.captions):
        raise ValueError("these captions have no grammar, so no exact score under noise")


def run(trial: Trial) -> dict:
    """Return the exact match of pictures of noisy captions, scored by the clean captions.

    {"clean": ..., noise: ..., "mean": the mean over the noises}.
    """
    noises = robustness.score_under_noise(
        lambda captions: draw(trial.pipe, captions, trial.seed, "drawing under noise"),
        trial.captions[:MAX_CAPTIONS],
        lambda images, captions: alignment.score(images, captions)["exact"],
        trial.seed,
    )
    values = [report["value"] for name, report in noises.items() if name != "clean"]
    return {**noises, "mean": float(np.mean(values))}


COLUMNS = (
    Column(
        title="under noise",
        value=at("robustness", "mean"),
        format="{:.3f}",
        better=1,
        meaning="exact, from misspelt and reworded captions",
        order=50,
    ),
)
MEASURE = Measure(
    name="robustness",
    order=60,
    applies=applies,
    run=run,
    columns=COLUMNS,
)
