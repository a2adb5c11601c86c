"""Does a model draw pairs of colour and shape that it has never seen together?"""

from t2i_jax.data.load import load_source
from t2i_jax.evaluation.column import Column, at, format_share
from t2i_jax.evaluation.draw import draw
from t2i_jax.evaluation.measure import Measure, Trial, require_pictures
from t2i_jax.metrics import alignment

SPLIT = "compositional"  # of `shapes`; the other splits have none of its pairs
MAX_CAPTIONS = 500


def applies(trial: Trial) -> None:
    """Raise ValueError without drawn pictures, and for data other than `shapes`."""
    require_pictures(trial)
    if trial.pipe.config.data.name != "shapes":
        raise ValueError("only `shapes` has a split of pairs that training has not")
    if "sample" not in trial.pipe.family.abilities:
        raise ValueError("this model does not draw")


def run(trial: Trial) -> dict:
    """Return the scores of pictures drawn from the first captions of the split."""
    captions = list(load_source(trial.pipe.config.data, SPLIT).captions[:MAX_CAPTIONS])
    images = draw(trial.pipe, captions, trial.seed, f"drawing {SPLIT}")
    return alignment.score(images, captions)


def lines(report: dict, setting: dict) -> list[str]:
    """Return one line with both scores."""
    strict, exact = (format_share(report[name]) for name in ("strict", "exact"))
    return [f"{SPLIT}, {report['n']} captions: strict {strict}, exact {exact}"]


COLUMNS = (
    Column(
        title=SPLIT,
        value=at(SPLIT, "strict", "value"),
        interval=at(SPLIT, "strict"),
        format="{:.3f}",
        better=1,
        meaning="strict, on pairs of colour and shape that training has not (share)",
        order=11,
    ),
)
MEASURE = Measure(
    name="compositional",
    order=12,
    applies=applies,
    run=run,
    lines=lines,
    columns=COLUMNS,
)
