"""Distances between drawn and real pictures in the features of an extractor."""

import numpy as np

from t2i_jax.data.load import load_source
from t2i_jax.evaluation.column import Column, at, scaled
from t2i_jax.evaluation.measure import Measure, Trial, collect, require_pictures
from t2i_jax.evaluation.picture_features import cached_features
from t2i_jax.metrics import fidelity, retrieval


def run(trial: Trial) -> dict:
    """Return the distances between the drawn and the true pictures.

    "real" in "kid" is the distance of other real pictures from the true ones: the floor.
    """
    config, extractor = trial.pipe.config, trial.extractor
    other = load_source(config.data, "validation" if trial.split != "validation" else "test")
    drawn, true = trial.drawn_features, trial.true_features
    index = np.arange(min(len(trial.true), len(other.captions)))
    real = cached_features(extractor, other, index)
    pairs = {
        "drawn": (true["features"], drawn["features"]),
        "real": (true["features"], real["features"]),
    }
    parts = {
        "kid": lambda: collect(
            {name: lambda pair=pair: fidelity.kid(*pair) for name, pair in pairs.items()}
        ),
        "precision_recall": lambda: fidelity.precision_recall(*pairs["drawn"]),
        "density_coverage": lambda: fidelity.density_coverage(*pairs["drawn"]),
        "fid" if extractor.fid else "frechet_distance": lambda: fidelity.frechet_distance(
            *(fidelity.moments([x]) for x in pairs["drawn"])
        ),
    }
    if "logits" in drawn:
        # The score splits the pictures in parts; a source may be sorted, so they are shuffled.
        order = np.random.default_rng(0).permutation(len(drawn["logits"]))
        parts["inception_score" if extractor.fid else "classifier_score"] = lambda: {
            name: fidelity.inception_score(found["logits"][order])
            for name, found in (("drawn", drawn), ("true", true))
        }
    if embed_text := extractor.embed_text:
        parts["cmmd"] = lambda: fidelity.cmmd(*pairs["drawn"])
        parts["clip_score"] = lambda: retrieval.clip_score(
            drawn["features"], embed_text(trial.captions)
        )
    return {"extractor": extractor.name, "rule": extractor.rule, **collect(parts)}


def lines(report: dict, setting: dict) -> list[str]:
    """Return the KIDs, and what was refused."""
    said = [f"features of {report['extractor']}: {report['rule']}"]
    kids = report.get("kid", {})
    for name, which in (("drawn", "the drawn"), ("real", "other real")):
        if name in kids:
            value, low, high = (1000 * kids[name][key] for key in ("value", "low", "high"))
            said.append(f"  KID x 1000 of {which} pictures: {value:.2f} [{low:.2f}, {high:.2f}]")
    return said + [f"  {name} refused: {why}" for name, why in report["refused"].items()]


def notes(reports) -> list[str]:
    """Return which features the numbers are in, and the KID of real pictures."""
    rules = {(report["extractor"], report["rule"]) for report in reports}
    real = {at("kid", "real", "value")(report) for report in reports} - {None}
    return [
        f"KID, precision, recall and diversity are in the features of {name}: {rule}."
        for name, rule in sorted(rules)
    ] + [
        f"KID x 1000 between two sets of real pictures, the floor: {1000 * value:.1f}."
        for value in sorted(real)
    ]


COLUMNS = (
    Column(
        title="KID x 1000",
        value=scaled(1000, at("fidelity", "kid", "drawn", "value")),
        format="{:.1f}",
        better=-1,
        meaning="distance from real pictures",
        order=70,
        headline="Closest to real pictures",
    ),
    Column(
        title="precision",
        value=at("fidelity", "precision_recall", "precision"),
        format="{:.2f}",
        better=1,
        meaning="drawn that look real",
        order=80,
    ),
    Column(
        title="recall",
        value=at("fidelity", "precision_recall", "recall"),
        format="{:.2f}",
        better=1,
        meaning="real that could be drawn",
        order=90,
    ),
)
MEASURE = Measure(
    name="fidelity",
    order=30,
    applies=require_pictures,
    run=run,
    lines=lines,
    columns=COLUMNS,
    notes=notes,
)
