"""Can the caption be found by the drawn picture? For captions without a grammar."""

import numpy as np

from t2i_jax.data.load import load_source
from t2i_jax.evaluation import probe as probes
from t2i_jax.evaluation.column import Column, at
from t2i_jax.evaluation.measure import Measure, Trial, require_pictures
from t2i_jax.evaluation.picture_features import cached_features
from t2i_jax.metrics import alignment
from t2i_jax.text import minilm


def applies(trial: Trial) -> None:
    """Raise ValueError without pictures, or if the captions have a grammar."""
    require_pictures(trial)
    if alignment.can_score(trial.captions):
        raise ValueError("these captions have a grammar: the exact score says more")


def run(trial: Trial) -> dict:
    """Return how well a self-trained probe finds the captions of drawn pictures.

    "true" is the same of the true pictures: the ceiling.
    """
    extractor, training = trial.extractor, load_source(trial.pipe.config.data, "train")
    index = np.arange(len(training.captions))
    known = cached_features(extractor, training, index)["features"]
    probe = probes.fit(known, minilm.embed(list(training.captions)))
    wanted = minilm.embed(trial.captions)
    drawn, true = trial.drawn_features["features"], trial.true_features["features"]
    return {
        "extractor": extractor.name,
        "drawn": probes.recall(probe, drawn, wanted, trial.captions),
        "true": probes.recall(probe, true, wanted, trial.captions),
    }


COLUMNS = (
    Column(
        title="R@5",
        value=at("retrieval", "drawn", "captions_of_pictures", "R@5", "value"),
        format="{:.3f}",
        better=1,
        meaning="captions found by a self-trained probe",
        order=60,
        headline="Most captions found again",
    ),
)
MEASURE = Measure(
    name="retrieval",
    order=80,
    applies=applies,
    run=run,
    columns=COLUMNS,
)
