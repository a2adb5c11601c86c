"""Does a model give away the pictures that were planted in its training? (arXiv 1802.08232)."""

import numpy as np
from scipy.stats import binomtest

from t2i_jax.core.source import Source
from t2i_jax.data import canaries
from t2i_jax.evaluation.column import Column, at, format_share
from t2i_jax.evaluation.example_losses import example_losses
from t2i_jax.evaluation.measure import Measure, Trial
from t2i_jax.metrics.captioning import mean_interval

OTHERS = 1000  # patterns that were not planted


def applies(trial: Trial) -> None:
    """Raise ValueError if nothing was planted."""
    if trial.pipe.config.data.name != "canaries":
        raise ValueError("no pictures were planted: data.name is not canaries")


def run(trial: Trial) -> dict:
    """Return how well planted pictures are found by the loss of the model.

    An attacker who knows the caption of a planted picture tries patterns: the planted one and 1,000
    that were never planted. "extracted": the share of planted pictures that have the lowest loss of
    all, with its exact 95 % interval (Clopper and Pearson). "rank": the mean share of the others
    that have a lower loss, with its bootstrap interval; half is chance.
    Raises ValueError as `example_losses` does.
    """
    count, side = trial.pipe.config.data.count, trial.pipe.config.data.resolution
    others = canaries.pattern(np.arange(count, count + OTHERS), side)
    lower = []
    for number in range(count):
        tried = np.concatenate([canaries.pattern([number], side), others])
        captions = [canaries.caption(number)] * len(tried)
        source = Source(captions, lambda index, tried=tried: tried[index], "")
        losses = example_losses(
            trial.pipe, source, np.arange(len(tried)), f"planted picture {number}"
        )
        lower.append(np.mean(losses[1:] <= losses[0]))
    ranks = np.array(lower)
    found = int((ranks == 0).sum())
    limits = binomtest(found, count).proportion_ci()  # exact: a bootstrap of 0 of 16 has no width
    extracted = {
        "value": found / count,
        "low": float(limits.low),
        "high": float(limits.high),
        "n": count,
    }
    return {"extracted": extracted, "rank": mean_interval(ranks)}


def lines(report: dict, setting: dict) -> list[str]:
    """Return a line with both numbers."""
    said = {name: format_share(number) for name, number in report.items()}
    return [
        f"planted pictures found by their loss: {said['extracted']} of {report['rank']['n']}; of "
        f"the patterns that were not planted, {said['rank']} have a lower loss (chance 0.5)"
    ]


MEASURE = Measure(
    name="canaries",
    order=86,
    applies=applies,
    run=run,
    usual=lambda pipe, source: pipe.config.data.name == "canaries",
    lines=lines,
    columns=(
        Column(
            title="planted",
            value=at("canaries", "extracted", "value"),
            format="{:.3f}",
            better=-1,
            meaning="share of planted training pictures that are found by the loss of the model",
            order=106,
        ),
    ),
)
