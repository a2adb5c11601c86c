"""Are the word maps of a model where the named objects are?"""

import numpy as np

from t2i_jax.core.family import get_ability
from t2i_jax.data.load import load_source
from t2i_jax.evaluation.column import Column, at, format_share
from t2i_jax.evaluation.measure import Measure, Trial, collect
from t2i_jax.metrics import word_maps

CHOSEN_ON = "validation"  # the split on whose true pictures the thresholds are chosen
MAX_PICTURES = 512


def applies(trial: Trial) -> None:
    """Raise ValueError for a model without word maps, and for data other than `shapes`."""
    get_ability(trial.pipe.family, "explain")
    if trial.pipe.config.data.name != "shapes":
        raise ValueError("the masks of named objects are known only for `shapes`")
    if trial.split in (CHOSEN_ON, "paraphrase"):
        raise ValueError(
            f"thresholds are chosen on {CHOSEN_ON}, and paraphrases have other words: measure "
            "another split"
        )


def run(trial: Trial) -> dict:
    """Return the IoU of word maps with the masks of objects, in true and in drawn pictures.

    "told_apart" is `metrics.word_maps.told_apart`.
    "true": of the true pictures. "drawn": of those drawn pictures that show their caption exactly.
    """
    source = load_source(trial.pipe.config.data, CHOSEN_ON)
    captions = list(source.captions[:MAX_PICTURES])
    chosen = word_maps.maps_and_masks(
        _found(trial, source.read(np.arange(len(captions))), captions)
    )

    def scores(images):
        found = _found(trial, images[:MAX_PICTURES], trial.captions[:MAX_PICTURES])
        scores = word_maps.score(word_maps.maps_and_masks(found), chosen)
        return {**scores, "told_apart": word_maps.told_apart(found)}

    parts = {"true": lambda: scores(trial.true), "drawn": lambda: scores(trial.drawn)}
    return {"chosen_on": CHOSEN_ON, **collect(parts)}


def _found(trial: Trial, images, captions) -> list:
    explained = trial.pipe.explain(list(images), captions)
    return word_maps.named_objects([each.maps for each in explained], images, captions)


def lines(report: dict, setting: dict) -> list[str]:
    """Return lines for the true pictures and for the drawn ones, or why they were refused."""
    said = []
    for name in ("true", "drawn"):
        if found := report.get(name):
            phrase, noun, coarse = (
                format_share(found[what]["iou"]) for what in ("phrase", "noun", "coarse_mask")
            )
            said.append(
                f"word maps of {found['phrase']['iou']['n']} objects in {name} pictures: IoU "
                f"{phrase}, of the noun alone {noun}; of the masks themselves at the size of a "
                f"map, for comparison, {coarse}"
            )
            if apart := found["told_apart"]:
                said.append(
                    "  with two objects, the map of a phrase is greater in its own object: "
                    + format_share(apart)
                )
    return said + [f"  {name} refused: {why}" for name, why in report["refused"].items()]


MEASURE = Measure(
    name="word_maps",
    order=72,
    applies=applies,
    run=run,
    lines=lines,
    columns=(
        Column(
            title="word maps",
            value=at("word_maps", "true", "phrase", "iou", "value"),
            interval=at("word_maps", "true", "phrase", "iou"),
            format="{:.3f}",
            better=1,
            meaning="word maps of the true pictures: IoU with the masks of the named objects",
            order=58,
        ),
    ),
)
