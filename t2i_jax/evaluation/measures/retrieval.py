"""Can the caption be found by the picture?

Of a model that embeds pictures and captions in one space: by its own embeddings of the true
pictures. Of a model that makes pictures, and captions without a grammar: by a probe, of the drawn
pictures.
"""

import numpy as np

from t2i_jax.data.load import load_source
from t2i_jax.evaluation import probe as probes
from t2i_jax.evaluation.column import Column, at, format_share
from t2i_jax.evaluation.measure import Measure, Trial, require_pictures
from t2i_jax.evaluation.picture_features import cached_features
from t2i_jax.metrics import alignment, retrieval
from t2i_jax.text import minilm


def embeds(pipe) -> bool:
    """Return whether the model embeds pictures and captions in one space."""
    return {"embed_image", "embed_text"} <= pipe.family.abilities.keys()


def applies(trial: Trial) -> None:
    """Raise ValueError for a model without a space of its own, unless the probe can be used.

    It needs pictures, and captions without a grammar.
    """
    if embeds(trial.pipe):
        return
    require_pictures(trial)
    if alignment.can_score(trial.captions):
        raise ValueError("these captions have a grammar: the exact score says more")


def usual(pipe, source) -> bool:
    """Return True for models with a space of their own."""
    return embeds(pipe)


def run(trial: Trial) -> dict:
    """Return {"own": recall} of a model that embeds, else that of a probe.

    Of captions that name a class, each picture has the right caption as often as its class occurs:
    R@1 of "captions_of_pictures" is then the accuracy of zero-shot classification.
    """
    if not embeds(trial.pipe):
        return recall_by_probe(trial)
    images = trial.pipe.embed_image(list(trial.true))
    texts = trial.pipe.embed_text(trial.captions)
    return {"own": retrieval.recall(images, texts, trial.captions)}


def recall_by_probe(trial: Trial) -> dict:
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


def lines(report: dict, setting: dict) -> list[str]:
    """Return one line for each direction, of a model that embeds."""
    del setting
    said = []
    for name, what in (
        ("captions_of_pictures", "captions found for {} pictures"),
        ("pictures_of_captions", "pictures found for {} captions"),
    ):
        if found := report.get("own", {}).get(name):
            first, five = (format_share(found[rank]) for rank in ("R@1", "R@5"))
            said.append(f"{what.format(found['R@1']['n'])}: R@1 {first}, R@5 {five}")
    return said


COLUMNS = (
    Column(
        title="own R@1",
        value=at("retrieval", "own", "captions_of_pictures", "R@1", "value"),
        interval=at("retrieval", "own", "captions_of_pictures", "R@1"),
        format="{:.3f}",
        better=1,
        meaning="captions found for the true pictures by the model's own embeddings",
        order=59,
        headline="Most captions found",
    ),
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
    usual=usual,
    run=run,
    lines=lines,
    columns=COLUMNS,
)
