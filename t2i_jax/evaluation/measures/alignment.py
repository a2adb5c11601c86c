"""Do drawn pictures show what their captions say? Exact scores, for captions with a grammar."""

import numpy as np
from jaxtyping import Int64

from t2i_jax.evaluation.column import Column, at, format_share
from t2i_jax.evaluation.draw import reconstruct
from t2i_jax.evaluation.measure import Measure, Trial, require_pictures
from t2i_jax.metrics import alignment, geneval


def applies(trial: Trial) -> None:
    """Raise ValueError without pictures, or if the captions have no grammar."""
    require_pictures(trial)
    if not alignment.can_score(trial.captions):
        raise ValueError("these captions have no grammar, so no exact score")


def usual(pipe, source) -> bool:
    """Return True for models that make pictures, of data without classes."""
    makes_pictures = bool({"sample", "reconstruct"} & pipe.family.abilities.keys())
    return makes_pictures and not len(source.labels)


def run(trial: Trial) -> dict:
    """Return exact and strict scores, and GenEval's tasks.

    "drawn": of the drawn pictures. "true": of the true ones, the ceiling. "reconstructed": of
    their reconstructions, where the model reconstructs: the ceiling of a first stage. Of these two,
    only the strict score is kept. "shuffled": of the drawn pictures by the captions of others,
    which an unconditional model could reach too.
    """
    seen = [alignment.read_picture(image) for image in trial.drawn]  # once, for three reports
    report = {
        "drawn": alignment.score(trial.drawn, trial.captions, seen=seen),
        "true": alignment.score(trial.true, trial.captions)["strict"],
        "geneval": geneval.score(trial.drawn, trial.captions, seen=seen),
    }
    if len(trial.captions) > 1:
        shuffled = [trial.captions[i] for i in derangement(len(trial.captions))]
        report["shuffled"] = alignment.score(trial.drawn, shuffled, seen=seen)
    if "reconstruct" in trial.pipe.family.abilities:
        again = reconstruct(trial.pipe, trial.captions, trial.true)
        report["reconstructed"] = alignment.score(again, trial.captions)["strict"]
    return report


def derangement(count: int) -> Int64[np.ndarray, "count"]:
    """Return a fixed permutation of `count` >= 2 without fixed points.

    It is one random cycle: each position gets the one that precedes it there.
    """
    cycle = np.random.default_rng(0).permutation(count)
    order = np.empty(count, np.int64)
    order[cycle] = np.roll(cycle, 1)
    return order


def lines(report: dict, setting: dict) -> list[str]:
    """Return the scores, the parser's own error and the ceiling of the first stage."""
    said = [
        alignment.format_report(report["drawn"]),
        f"strict score of the true pictures: {report['true']['value']:.4f}",
    ]
    if "reconstructed" in report:
        said.append(f"of its reconstructions of them: {report['reconstructed']['value']:.4f}")
    if "shuffled" in report:
        said.append("drawn pictures, by their own captions and by those of others:")
        said += [
            _side_by_side(atom, *(report[name]["atoms"][atom] for name in ("drawn", "shuffled")))
            for atom in report["drawn"]["atoms"]
        ]
    worst = report["drawn"]["worst_kind"]
    strict, exact = (format_share(report["drawn"][name]) for name in ("strict", "exact"))
    said.append(
        f"strict match on {setting['split']}: {strict} of {report['drawn']['n']} captions, exact "
        f"match {exact}, worst kind ({worst}) {report['drawn']['kinds'][worst]['value']:.3f}"
    )
    return said


def _side_by_side(name: str, own: dict, other: dict) -> str:
    """Return two scores in percent, and whether the first interval lies above the second."""
    each = " and ".join(
        f"{100 * r['value']:5.1f} % [{100 * r['low']:5.1f}, {100 * r['high']:5.1f}]"
        for r in (own, other)
    )
    return f"  {name:<10}{each}, " + ("apart" if own["low"] > other["high"] else "not apart")


def notes(reports) -> list[str]:
    """Return the scores of the true pictures."""
    true = {report["true"]["value"] for report in reports}
    return [
        f"Strict score of the true pictures, the ceiling: {value:.4f}." for value in sorted(true)
    ]


COLUMNS = (
    Column(
        title="strict",
        value=at("alignment", "drawn", "strict", "value"),
        interval=at("alignment", "drawn", "strict"),
        format="{:.3f}",
        better=1,
        meaning="captions drawn exactly right, and clean (share)",
        order=9,
        headline="Most captions drawn exactly right",
    ),
    Column(
        title="exact",
        value=at("alignment", "drawn", "exact", "value"),
        interval=at("alignment", "drawn", "exact"),
        format="{:.3f}",
        better=1,
        meaning="the same, where faint objects, specks and tints are forgiven",
        order=10,
    ),
    Column(
        title="GenEval",
        value=at("alignment", "geneval", "overall", "value"),
        format="{:.3f}",
        better=1,
        meaning="mean of GenEval's six tasks, on shapes",
        order=40,
    ),
)
MEASURE = Measure(
    name="alignment",
    order=10,
    applies=applies,
    usual=usual,
    run=run,
    lines=lines,
    concludes=True,
    columns=COLUMNS,
    notes=notes,
)
