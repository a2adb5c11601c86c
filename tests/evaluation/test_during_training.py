"""Scores and contact sheets while a model trains."""

import numpy as np
import pytest

from t2i_jax.data.load import load_source
from t2i_jax.evaluation import classifier, picture_features
from t2i_jax.evaluation.during_training import score_examples, show_examples
from t2i_jax.metrics import diversity
from tests.evaluation.fakes import COLOURS, Captioner, TruePipeline


def test_scores_while_training(smoke, monkeypatch):
    """Exact match where captions have a grammar; KID where they have not, with an extractor."""
    pipe = TruePipeline(smoke("shapes"))
    assert score_examples(pipe, pipe.pictures) == {"score/strict": 1.0, "score/exact": 1.0}
    others = pipe.pictures._replace(captions=[f"my cat {i}" for i in range(16)])
    assert score_examples(pipe, others) == {}, "no weights of an extractor"
    monkeypatch.setattr(picture_features, "load_extractor", lambda config: COLOURS)
    scores = score_examples(pipe, others)
    assert scores["score/kid"] < 0, "the same pictures: nearer than two samples are"
    assert scores["score/diversity"] == scores["score/vendi"] == pytest.approx(1)
    with_grammar = score_examples(pipe, pipe.pictures)
    assert set(with_grammar) == {
        "score/strict",
        "score/exact",
        "score/diversity",
        "score/vendi",
    }
    pipe.draw_rows = lambda captions, index, seed: pipe.pictures.read(0 * index)
    collapsed = score_examples(pipe, others)
    assert collapsed["score/diversity"] == 0
    assert collapsed["score/vendi"] == pytest.approx(1 / vendi_of_real(pipe, COLOURS))
    assert collapsed["score/kid"] > 0


def vendi_of_real(pipe, extractor):
    """The effective number of distinct pictures among those that `score_examples` looks at."""
    true = pipe.pictures.read(np.arange(pipe.config.train.score_examples))
    return diversity.vendi_score(extractor.apply(extractor.weights, true)["features"])


def test_class_accuracy_while_training(smoke, monkeypatch):
    """Where the source has classes and the model is conditioned on them."""
    pipe = TruePipeline(smoke("shapes"))
    labelled = pipe.pictures._replace(labels=[i % 4 for i in range(16)], classes=tuple("abcd"))
    monkeypatch.setattr(classifier, "cached_classifier", lambda training: "params")
    monkeypatch.setattr(classifier, "predict", lambda params, images: np.arange(len(images)) % 2)
    assert score_examples(pipe, labelled)["score/accuracy"] == 0.5
    pipe.config = smoke("shapes", "text.encoder=none")
    assert "score/accuracy" not in score_examples(pipe, labelled)


def test_the_score_of_captions(smoke):
    config = smoke("shapes")
    scores = score_examples(Captioner(config), load_source(config.data, "test"))
    assert scores == {"score/caption": 1 - 1 / config.train.score_examples}


def test_the_contact_sheet_has_a_row_of_each_source(smoke):
    """`train.grid` is 4: two examples of each, tiles of 128 px, a gap of 8 px around each."""
    pipe = TruePipeline(smoke("shapes"))
    page = show_examples(pipe, load_source(pipe.config.data, "train"), pipe.pictures)
    assert page.width == 2 * (128 + 8) + 8 and page.height > 2 * 128
