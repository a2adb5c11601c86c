"""Does one caption give different pictures, and are any of them copies of training pictures?"""

import numpy as np

from t2i_jax.data.load import load_source
from t2i_jax.evaluation import picture_features
from t2i_jax.evaluation.column import Column, at
from t2i_jax.evaluation.draw import draw
from t2i_jax.evaluation.measure import Measure, Trial, collect, require_pictures
from t2i_jax.metrics import diversity

MAX_TRAINING_PICTURES = 2048  # among which the nearest neighbours are sought
MAX_CAPTIONS_REPEATED, PICTURES_PER_CAPTION = 16, 8


def run(trial: Trial) -> dict:
    """Return the spread of pictures of one caption, signs of collapse, and the memorised share.

    "memorised" looks at some of the training pictures only ("among" so many "of" all): a copy of
    another one is not found.
    """
    extractor, training = trial.extractor, load_source(trial.pipe.config.data, "train")
    spacing = max(len(trial.captions) // MAX_CAPTIONS_REPEATED, 1)
    chosen = trial.captions[::spacing][:MAX_CAPTIONS_REPEATED]
    repeated = np.repeat(chosen, PICTURES_PER_CAPTION).tolist()
    images = draw(trial.pipe, repeated, trial.seed, "drawing for diversity")
    last = len(training.captions) - 1
    known = np.unique(np.linspace(0, last, MAX_TRAINING_PICTURES).astype(int))
    of_training = picture_features.cached_features(extractor, training, known)["features"]
    of_repeated = picture_features.extract_features(extractor, images)["features"]
    true, drawn = trial.true_features["features"], trial.drawn_features["features"]
    distance = diversity.pairwise_distance(of_repeated, repeated)["value"]

    def memorised():
        found = diversity.memorised(drawn, of_training, true)
        counts = {"among": len(known), "of": len(training.captions)}
        return {**{key: found[key] for key in ("value", "threshold", "quantile")}, **counts}

    parts = {
        "of_one_caption": lambda: {"captions": len(chosen), "value": distance},
        "collapse": lambda: diversity.mode_collapse(drawn, trial.captions, true, trial.captions),
        "memorised": memorised,
    }
    return {"extractor": extractor.name, **collect(parts)}


COLUMNS = (
    Column(
        title="diversity",
        value=at("diversity", "of_one_caption", "value"),
        format="{:.2f}",
        better=0,
        meaning="feature distance within a caption",
        order=100,
    ),
)
MEASURE = Measure(
    name="diversity",
    order=50,
    applies=require_pictures,
    run=run,
    columns=COLUMNS,
)
