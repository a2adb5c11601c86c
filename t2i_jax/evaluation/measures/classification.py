"""Are drawn pictures of the class of their caption, as a classifier of real pictures judges?"""

from t2i_jax.data.load import load_source
from t2i_jax.evaluation import classifier
from t2i_jax.evaluation.column import Column, at, format_share, length_at
from t2i_jax.evaluation.draw import is_conditional
from t2i_jax.evaluation.measure import Measure, Trial, require_pictures
from t2i_jax.metrics import classification


def applies(trial: Trial) -> None:
    """Raise ValueError without pictures, or if the data have no classes."""
    require_pictures(trial)
    if not len(trial.source.labels):
        raise ValueError("these captions are not of classes, so there is no class accuracy")


def usual(pipe, source) -> bool:
    """Return True for models that make pictures, of data with classes."""
    makes_pictures = bool({"sample", "reconstruct"} & pipe.family.abilities.keys())
    return makes_pictures and bool(len(source.labels))


def run(trial: Trial) -> dict:
    """Return the accuracy of "drawn" and of "real" pictures, by a classifier of the training ones.

    "real", of the true pictures, is the classifier's own accuracy: the ceiling. Of an unconditional
    model ("conditional" is False), both are the histogram of the recognised classes.
    """
    config, classes = trial.pipe.config, trial.source.classes
    labels = trial.source.labels[: len(trial.true)]
    params = classifier.cached_classifier(load_source(config.data, "train"))
    recognised = {
        name: classifier.predict(params, images)
        for name, images in (("drawn", trial.drawn), ("real", trial.true))
    }
    if is_conditional(config):
        return {"conditional": True} | {
            name: classification.accuracy(x, labels, classes) for name, x in recognised.items()
        }
    return {"conditional": False} | {
        name: classification.histogram(x, classes) for name, x in recognised.items()
    }


def lines(report: dict, setting: dict) -> list[str]:
    """Return the accuracy or the histogram, and the classes that are never drawn."""
    drawn, real = report["drawn"], report["real"]
    if report["conditional"]:
        own, ceiling = drawn["accuracy"], real["accuracy"]
        worst = min(drawn["recall"], key=drawn["recall"].get)
        said = [
            f"class accuracy: {format_share(own)} of "
            f"{own['n']} drawn pictures, {ceiling['value']:.3f} of the real ones; worst class "
            f"({worst}) {drawn['recall'][worst]:.3f}"
        ]
    else:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in drawn["share"].items())
        said = [f"classes recognised in {drawn['n']} drawn pictures: {shares}"]
    return [*said, f"  never drawn: {', '.join(drawn['missing']) or 'none of them'}"]


def notes(reports) -> list[str]:
    """Return the accuracy of the real pictures."""
    real = {at("real", "accuracy", "value")(report) for report in reports} - {None}
    return [
        f"Class accuracy of the real pictures, the ceiling: {value:.3f}." for value in sorted(real)
    ]


COLUMNS = (
    Column(
        title="class accuracy",
        value=at("classification", "drawn", "accuracy", "value"),
        format="{:.3f}",
        better=1,
        meaning="pictures recognised as the class that was asked for, by a classifier fitted to "
        "real ones",
        order=20,
        headline="Most pictures of the class asked for",
    ),
    Column(
        title="classes missing",
        value=length_at("classification", "drawn", "missing"),
        format="{:.0f}",
        better=-1,
        meaning="never drawn, as far as the classifier can tell",
        order=30,
    ),
)
MEASURE = Measure(
    name="classification",
    order=20,
    applies=applies,
    usual=usual,
    run=run,
    lines=lines,
    columns=COLUMNS,
    notes=notes,
)
