"""Are the captions that a model gives to the true pictures right?"""

from t2i_jax.core.family import get_ability
from t2i_jax.evaluation.column import format_share
from t2i_jax.evaluation.measure import Measure, Trial
from t2i_jax.metrics import alignment, captioning

MAX_CAPTIONS_KEPT = 64


def applies(trial: Trial) -> None:
    """Raise ValueError for a model that does not caption."""
    get_ability(trial.pipe.family, "caption")


def usual(pipe, source) -> bool:
    """Return True for models that caption."""
    return "caption" in pipe.family.abilities


def run(trial: Trial) -> dict:
    """Return whether the captions are true, where they have a grammar; else the words they share.

    "found": the first captions.
    """
    found = trial.pipe.caption(list(trial.true), seed=trial.seed)
    if alignment.can_score(trial.captions):
        report = captioning.score(found, trial.captions, trial.true)
    else:
        report = {"word_f1": captioning.mean_interval(captioning.word_f1(found, trial.captions))}
    return {**report, "found": found[:MAX_CAPTIONS_KEPT]}


def lines(report: dict, setting: dict) -> list[str]:
    """Return one line with the scores."""

    def score(name, what):
        r = report[name]
        return f"{what}: {format_share(r)} of {r['n']}"

    if "word_f1" in report:
        return [score("word_f1", "words that captions share with the true ones (F1)")]
    agrees = score("agrees", "captions that are true of their picture")
    exact = f"with the meaning of the true caption: {report['exact']['value']:.3f}"
    return [f"{agrees}; {exact}; not in the grammar: {report['unparsed']:.3f}"]


MEASURE = Measure(
    name="captioning",
    order=70,
    applies=applies,
    usual=usual,
    run=run,
    lines=lines,
)
