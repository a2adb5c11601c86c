"""Can training examples be told from others by their loss? (arXiv 1709.01604, adversary 1)."""

import numpy as np

from t2i_jax.data.load import load_source
from t2i_jax.evaluation.column import Column, at, format_share
from t2i_jax.evaluation.example_losses import example_losses
from t2i_jax.evaluation.measure import Measure, Trial
from t2i_jax.metrics import membership


def run(trial: Trial) -> dict:
    """Return `metrics.membership.score` of as many training examples, spread, as there are others.

    The others are the examples of the trial, which training must not have seen.
    Raises ValueError for the split "train", and as `example_losses` does.
    """
    if trial.split == "train":
        raise ValueError("the others have to be of another split than train")
    training = load_source(trial.pipe.config.data, "train")
    count = min(len(trial.captions), len(training.captions))
    spread = np.linspace(0, len(training.captions) - 1, count).astype(np.int64)
    members = example_losses(trial.pipe, training, spread, "losses of training")
    others = example_losses(trial.pipe, trial.source, np.arange(count), "losses of others")
    return membership.score(members, others)


def lines(report: dict, setting: dict) -> list[str]:
    """Return a line with both numbers."""
    said = {name: format_share(number) for name, number in report.items()}
    return [
        f"training examples told from others by their loss: AUC {said['auc']} (chance 0.5), "
        f"{said['found']} found among 1 % of false ones (chance 0.01)"
    ]


MEASURE = Measure(
    name="membership",
    order=85,
    run=run,
    lines=lines,
    columns=(
        Column(
            title="membership",
            value=at("membership", "auc", "value"),
            format="{:.3f}",
            better=-1,
            meaning="AUC of telling training examples from others by their loss; 0.5 is chance",
            order=105,
        ),
    ),
)
