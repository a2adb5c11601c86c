"""Scores are those of the pictures that were drawn; the ruler measures itself."""

import json

import numpy as np
import pytest

from t2i_jax import evaluate, measures
from t2i_jax.data import source as sources
from t2i_jax.features.extractor import Extractor
from t2i_jax.metrics import alignment, diversity
from t2i_jax.models import classifier


class TruePipeline:
    """Draws the true pictures of the test split: a model without error."""

    weights = "w"

    def __init__(self, config, shift=0):
        self.config, self.shift = config, shift
        self.pictures = sources.load(config.data, "test")
        self.family = type("Family", (), {"settings": {"sample": {}}, "abilities": {"sample": None}})

    def draw_rows(self, captions, index, seed):
        assert len(captions) in (self.config.evaluate.batch, 1 << (len(captions) - 1).bit_length())
        return self.pictures.read((index + self.shift) % 16)


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (1, 0.0)])
def test_a_perfect_and_a_mistaken_model(smoke, tmp_path, shift, expected):
    config = smoke("shapes", "evaluate.num=13")  # not a multiple of the batch
    pipe = TruePipeline(config, shift)
    report = evaluate.evaluate(pipe, tmp_path, "test")
    scores, folder = report["alignment"], tmp_path / "evaluation" / "test"
    assert scores["drawn"]["n"] == 13 and scores["true"]["value"] == 1.0
    assert scores["drawn"]["exact"]["value"] == expected
    assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(report))
    with np.load(folder / "pictures.npz") as pictures:
        np.testing.assert_array_equal(pictures["true"], pipe.pictures.read(np.arange(13)))
        assert np.array_equal(pictures["drawn"], pictures["true"]) == (not shift)
    assert (folder / "grid.png").is_file()
    assert f"exact match on test: {expected:.3f}" in evaluate.summary(report, tmp_path)


def test_truth_and_shuffled(smoke):
    text = evaluate.evaluate_truth(smoke("shapes"), "test", 60)
    own, shuffled = text.split("\n\n")
    assert "100.0 %" in own.splitlines()[1] and float(shuffled.splitlines()[1].split()[1]) < 10


def test_captions_without_a_grammar_are_drawn_and_not_scored(smoke, tmp_path, monkeypatch):
    config = smoke("shapes", "evaluate.num=9")
    pipe = TruePipeline(config)
    real = sources.load(config.data, "test")
    monkeypatch.setattr(sources, "load", lambda *_: real._replace(captions=[f"my cat {i}" for i in range(16)]))
    report = evaluate.evaluate(pipe, tmp_path, "test")
    assert "alignment" not in report and "no exact score" in evaluate.summary(report, tmp_path)
    with pytest.raises(FileNotFoundError, match="prepare --weights=efficientnet_lite0"):
        evaluate.evaluate_truth(config, "test", 8)


def test_without_a_grammar_the_ruler_is_shown_real_and_spoilt_pictures(smoke, monkeypatch):
    """Pixels as features: more noise is further away, and other real pictures are not."""
    pixels = Extractor("Pixels", "none", {}, lambda weights, x: {"features": x.reshape(len(x), -1).astype(np.float32) / 255})
    monkeypatch.setattr(evaluate, "load_extractor", lambda config: pixels)
    monkeypatch.setattr(alignment, "can_score", lambda captions: False)
    text = evaluate.evaluate_truth(smoke("shapes", "data.scenes=240"), "test")
    kid = {line[:30].strip(): float(line[30:].split()[0]) for line in text.splitlines()[1:]}
    assert max(kid["real pictures of validation"], kid["test, grain_8"]) < 0 < kid["test, grain_32"]
    assert "Pixels, none" in text and len(kid) == 5


def test_metrics_json_says_how_to_do_it_again(smoke, tmp_path):
    """The same setting gives the same report; another seed is another setting."""
    config = smoke("shapes")
    reports = [evaluate.evaluate(TruePipeline(config), tmp_path, num=4, seed=seed) for seed in (0, 0, 1)]
    assert reports[0] == reports[1] and reports[0]["setting"]["seed"] != reports[2]["setting"]["seed"]
    setting = reports[0]["setting"]
    assert (
        setting["config"] == json.loads(json.dumps(config.to_dict()))
        and setting["data"] == sources.load(config.data, "test").fingerprint
    )
    assert setting["num"] == 4 and setting["weights"] == "w" and setting["versions"].keys() >= {"jax", "t2i_jax"}


def test_a_source_of_classes_is_measured_by_them(smoke, tmp_path, monkeypatch):
    config = smoke("shapes")
    pipe = TruePipeline(config)
    real = pipe.pictures._replace(labels=[0] * len(pipe.pictures.captions), classes=("a",))
    monkeypatch.setattr(sources, "load", lambda *_: real)
    monkeypatch.setitem(evaluate.MEASURES, "classification", lambda trial: {"of": len(trial.captions)})
    report = evaluate.evaluate(pipe, tmp_path, num=4)
    assert report["classification"] == {"of": 4} and "alignment" not in report


def test_other_measures_of_the_same_pictures_stay(smoke, tmp_path):
    config = smoke("shapes")
    evaluate.evaluate(TruePipeline(config), tmp_path, num=4, measures=("alignment",))
    both = evaluate.evaluate(TruePipeline(config), tmp_path, num=4, measures=("fidelity",))
    assert both["alignment"]["drawn"]["n"] == 4 and "fidelity" in both["not_measured"]
    other = evaluate.evaluate(TruePipeline(config), tmp_path, num=5, measures=("fidelity",))
    assert "alignment" not in other, "of other pictures"


def test_what_cannot_be_measured_is_said_and_the_rest_is_there(smoke, tmp_path):
    pipe = TruePipeline(smoke("shapes"))
    report = evaluate.evaluate(pipe, tmp_path, measures=("fidelity", "reconstruction", "alignment"))
    assert report["alignment"]["drawn"]["exact"]["value"] == 1.0
    assert "prepare --weights=efficientnet_lite0" in report["not_measured"]["fidelity"]
    assert "does not reconstruct" in report["not_measured"]["reconstruction"]
    with pytest.raises(ValueError, match="no measure 'fidelty': there are alignment, classification, fidelity"):
        evaluate.evaluate(pipe, tmp_path / "none", measures=("fidelty",))
    assert not (tmp_path / "none").exists()


def test_scores_while_training(smoke, monkeypatch):
    """Exact match where captions have a grammar, KID where they have not and the extractor is there."""
    pipe = TruePipeline(smoke("shapes"))
    assert evaluate.score_during(pipe, pipe.pictures) == {"score/exact": 1.0}
    others = pipe.pictures._replace(captions=[f"my cat {i}" for i in range(16)])
    assert evaluate.score_during(pipe, others) == {}, "no weights of an extractor"
    colours = Extractor("Colours", "none", {}, lambda weights, x: {"features": x.astype(np.float32).mean((1, 2))})
    monkeypatch.setattr(evaluate, "load_extractor", lambda config: colours)
    scores = evaluate.score_during(pipe, others)
    assert scores["score/kid"] < 0, "the same pictures: nearer than two samples are"
    assert scores["score/diversity"] == scores["score/vendi"] == pytest.approx(1)
    assert set(evaluate.score_during(pipe, pipe.pictures)) == {"score/exact", "score/diversity", "score/vendi"}
    pipe.draw_rows = lambda captions, index, seed: pipe.pictures.read(0 * index)
    collapsed = evaluate.score_during(pipe, others)
    assert collapsed["score/diversity"] == 0 and collapsed["score/vendi"] == pytest.approx(1 / scores_real(pipe, colours))
    assert collapsed["score/kid"] > 0


def scores_real(pipe, extractor):
    """The effective number of distinct pictures among those that `score_during` looks at."""
    true = pipe.pictures.read(np.arange(pipe.config.train.score_examples))
    return diversity.vendi_score(extractor.apply(extractor.weights, true)["features"])


def test_class_accuracy_while_training(smoke, monkeypatch):
    """Where the source has classes and the model is told them."""
    pipe = TruePipeline(smoke("shapes"))
    labelled = pipe.pictures._replace(labels=[i % 4 for i in range(16)], classes=tuple("abcd"))
    monkeypatch.setattr(evaluate, "classifier_of", lambda training: "params")
    monkeypatch.setattr(classifier, "predict", lambda params, images: np.arange(len(images)) % 2)
    assert evaluate.score_during(pipe, labelled)["score/accuracy"] == 0.5
    pipe.config = smoke("shapes", "text.encoder=none")
    assert "score/accuracy" not in evaluate.score_during(pipe, labelled)


def test_what_is_said_of_classes_and_of_shuffled_captions(smoke, tmp_path):
    report = evaluate.evaluate(TruePipeline(smoke("shapes")), tmp_path, num=16)
    number = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 8}
    recall = {"bag": 0.75, "coat": 0.25, "dress": 0.0}
    report["classification"] = {
        "conditional": True,
        "drawn": {"accuracy": number, "recall": recall, "missing": ["dress"]},
        "real": {"accuracy": {**number, "value": 0.91}},
    }
    said = evaluate.summary(report, tmp_path)
    assert "class accuracy: 0.500 [0.400, 0.600] of 8 drawn pictures, 0.910 of the real ones; worst class (dress) 0.000" in said
    assert "never drawn: dress" in said
    colour = next(line for line in said.splitlines() if line.startswith("  colour"))
    assert colour.startswith("  colour    100.0 % [100.0, 100.0] and ") and colour.endswith(", apart")
    share = {"bag": 0.25, "coat": 0.75}
    report["classification"] = {"conditional": False, "drawn": {"n": 8, "share": share, "missing": []}, "real": {}}
    said = evaluate.summary(report, tmp_path)
    assert "classes recognised in 8 drawn pictures: bag 25 %, coat 75 %" in said and "never drawn: none of them" in said


class Captioner(TruePipeline):
    """Says the true captions, but for the first, and draws nothing."""

    def __init__(self, config):
        super().__init__(config)
        self.family = type("Family", (), {"settings": {"sample": {}}, "abilities": {"caption": None}})

    def caption(self, images, **settings):
        return ["a large red circle and more", *self.pictures.captions[1 : len(images)]]


def test_a_model_that_only_captions_is_measured_by_its_captions(smoke, tmp_path):
    config = smoke("shapes")
    report = evaluate.evaluate(Captioner(config), tmp_path, num=10)
    assert "alignment" not in report and report["captioning"]["agrees"]["value"] == 0.9
    assert report["captioning"]["unparsed"] == 0.1
    assert "captions that are true of their picture: 0.900" in evaluate.summary(report, tmp_path)
    assert (tmp_path / "evaluation" / "test" / "grid.png").is_file()
    scores = evaluate.score_during(Captioner(config), sources.load(config.data, "test"))
    assert scores == {"score/caption": 1 - 1 / config.train.score_examples}


def test_all_measures_of_a_model_that_only_captions(smoke, tmp_path, monkeypatch):
    colours = Extractor("Colours", "none", {}, lambda weights, x: {"features": x.astype(np.float32).mean((1, 2))})
    monkeypatch.setattr(measures, "load_extractor", lambda config: colours)
    monkeypatch.setitem(evaluate.MEASURES, "cost", lambda trial: {})  # of a network, which the toy has not
    report = evaluate.evaluate(Captioner(smoke("shapes")), tmp_path, num=10, measures=tuple(evaluate.MEASURES))
    assert report["captioning"]["agrees"]["value"] == 0.9 and "does not reconstruct" in report["not_measured"].pop(
        "reconstruction"
    )
    drawing = ("alignment", "classification", "fidelity", "diversity", "robustness", "retrieval")
    assert report["not_measured"] == dict.fromkeys(drawing, "this model neither draws nor reconstructs pictures")
