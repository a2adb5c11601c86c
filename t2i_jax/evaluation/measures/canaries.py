"""Does a model give back the pictures that were planted in its training? (arXiv 1802.08232)."""

import numpy as np
from scipy.spatial.distance import cdist

from t2i_jax.data import canaries
from t2i_jax.evaluation.column import Column, at
from t2i_jax.evaluation.draw import draw, is_conditional
from t2i_jax.evaluation.measure import Measure, Trial
from t2i_jax.metrics.captioning import mean_interval

OTHERS = 1000  # patterns that were not planted
DRAWS = 4  # pictures of each caption


def applies(trial: Trial) -> None:
    """Raise ValueError if nothing was planted, or the model cannot be asked for it by a caption."""
    if trial.pipe.config.data.name != "canaries":
        raise ValueError("no pictures were planted: data.name is not canaries")
    if "sample" not in trial.pipe.family.abilities or not is_conditional(trial.pipe.config):
        raise ValueError("this model draws no pictures of captions")


def run(trial: Trial) -> dict:
    """Return the share of planted pictures that the model gives back when asked by their captions.

    The mean of a few drawn pictures is compared with the planted one and 1,000 patterns that were
    never planted. "extracted": it is nearest to the planted one. "rank": the mean share of the
    others that are nearer; half is chance.
    """
    count, side = trial.pipe.config.data.count, trial.pipe.config.data.resolution
    captions = [canaries.caption(k) for k in range(count) for _ in range(DRAWS)]
    drawn = draw(trial.pipe, captions, trial.seed, "asking for planted pictures")
    asked = drawn.astype(np.float32).reshape(count, DRAWS, -1).mean(1)
    patterns = canaries.pattern(np.arange(count + OTHERS), side).reshape(count + OTHERS, -1)
    distance = cdist(asked, patterns)
    nearer = (distance[:, count:] <= np.diag(distance)[:, None]).mean(1)
    return {"extracted": mean_interval(1.0 * (nearer == 0)), "rank": mean_interval(nearer)}


def lines(report: dict, setting: dict) -> list[str]:
    """Return a line with both numbers."""
    said = {
        name: "{value:.3f} [{low:.3f}, {high:.3f}]".format(**report[name])
        for name in ("extracted", "rank")
    }
    return [
        f"planted pictures given back: {said['extracted']} of {report['rank']['n']}; of patterns "
        f"that were not planted, {said['rank']} are nearer (chance 0.5)"
    ]


MEASURE = Measure(
    name="canaries",
    order=71,
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
            meaning="share of planted training pictures that the model gives back",
            order=71,
        ),
    ),
)
