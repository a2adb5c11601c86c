"""What is shown and measured while a model trains: a contact sheet of examples, and some scores."""

import contextlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from t2i_jax.core.source import Source
from t2i_jax.data.load import load_source
from t2i_jax.evaluation import classifier, picture_features
from t2i_jax.evaluation.contact_sheet import contact_sheet
from t2i_jax.evaluation.draw import for_display, is_conditional, make_pictures
from t2i_jax.evaluation.measure import collect
from t2i_jax.metrics import alignment, captioning, classification, diversity, fidelity
from t2i_jax.pipeline import Pipeline
from t2i_jax.training.session import Evaluators


def show_examples(pipe: Pipeline, training: Source, validation: Source) -> Image.Image:
    """Return a contact sheet: a row of training examples and one of validation examples.

    The examples are spread over their source.
    """
    half = max(pipe.config.train.grid // 2, 1)
    chosen = []
    for source in (training, validation):
        count = len(source.captions)
        chosen.append((source, np.arange(0, count, max(count // half, 1))[:half]))
    captions = [source.captions[i] for source, index in chosen for i in index]
    true = np.concatenate([source.read(index) for source, index in chosen])
    shown = for_display(pipe, captions, true, make_pictures(pipe, captions, true, seed=0))
    return contact_sheet(*shown, columns=min(half, len(training.captions)))


def score_examples(pipe: Pipeline, source: Source) -> dict[str, float]:
    """Return scores of the first `train.score_examples` examples of a source, as far as they apply.

    "score/caption": the share of captions that are true of their picture, for a model that
        captions, and captions with a grammar.
    "score/exact", "score/strict": the share of captions drawn exactly right, and of those whose
        picture is clean as well, for captions with a grammar (metrics/alignment.py).
    "score/accuracy": the share of pictures recognised as the class of their caption, for a source
        with classes and a conditional model.
    "score/kid": KID, for captions without a grammar.
    "score/diversity", "score/vendi": the mean distance between drawn pictures, and the effective
        number of distinct ones, each divided by that of the true pictures. Near 0, the model has
        collapsed.
    Without the extractor's weights, or with too few pictures, the last three are left out.
    """
    count = min(pipe.config.train.score_examples, len(source.captions))
    captions, true = list(source.captions[:count]), source.read(np.arange(count))
    images = make_pictures(pipe, captions, true, seed=0)
    has_grammar = alignment.can_score(captions)
    scores = {}
    if "caption" in pipe.family.abilities and has_grammar:
        report = captioning.score(pipe.caption(list(true)), captions, true)
        scores["score/caption"] = report["agrees"]["value"]
    if not len(images) or "translate" in pipe.family.abilities:
        return scores  # translations are not of the set of the true pictures
    if has_grammar:
        report = alignment.score(images, captions)
        scores |= {f"score/{name}": report[name]["value"] for name in ("strict", "exact")}
    return scores | _class_scores(pipe, source, images) | _feature_scores(pipe, source, images)


def _class_scores(pipe: Pipeline, source: Source, images: np.ndarray) -> dict[str, float]:
    """Return {"score/accuracy"}, or {} where it does not apply."""
    labels = source.labels[: len(images)]
    if not len(labels) or not is_conditional(pipe.config):
        return {}
    with contextlib.suppress(ValueError):  # all training pictures are of one class
        params = classifier.cached_classifier(load_source(pipe.config.data, "train"))
        recognised = classifier.predict(params, images)
        report = classification.accuracy(recognised, labels, source.classes)
        return {"score/accuracy": report["accuracy"]["value"]}
    return {}


def _feature_scores(pipe: Pipeline, source: Source, images: np.ndarray) -> dict[str, float]:
    """Return KID and diversities of the first pictures of a source, as far as they apply."""
    captions, scores = list(source.captions[: len(images)]), {}
    # Training goes on without the extractor's weights, or with too few pictures.
    with contextlib.suppress(FileNotFoundError, ValueError):
        extractor, index = picture_features.load_extractor(pipe.config), np.arange(len(images))
        real = picture_features.cached_features(extractor, source, index)["features"]
        drawn = picture_features.extract_features(extractor, images)["features"]
        parts: dict[str, Callable] = {
            "collapse": lambda: diversity.mode_collapse(drawn, captions, real, captions)
        }
        if not alignment.can_score(captions):
            parts["kid"] = lambda: fidelity.kid(real, drawn)["value"]
        found = collect(parts)
        if "kid" in found:
            scores["score/kid"] = found["kid"]
        if spread := found.get("collapse"):
            scores |= {
                "score/diversity": spread["distance"],
                "score/vendi": spread["vendi"] / spread["vendi_real"],
            }
    return scores


EVALUATORS = Evaluators(grid=show_examples, score=score_examples)
