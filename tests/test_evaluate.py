"""Scores are those of the pictures that were drawn; the ruler measures itself."""

import json

import numpy as np
import pytest

from t2i_jax import evaluate
from t2i_jax.data import source as sources
from t2i_jax.features.extractor import Extractor
from t2i_jax.metrics import alignment


class TruePipeline:
    """Draws the true pictures of the test split: a model without error."""

    weights = "w"

    def __init__(self, config, shift=0):
        self.config, self.shift = config, shift
        self.pictures = sources.load(config.data, "test")
        self.family = type("Family", (), {"settings": {"sample": {}}, "abilities": {}})

    def draw_rows(self, captions, index, seed):
        assert len(captions) == self.config.evaluate.batch
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
    assert setting["config"] == config.to_dict() and setting["data"] == sources.load(config.data, "test").fingerprint
    assert setting["num"] == 4 and setting["weights"] == "w" and setting["versions"].keys() >= {"jax", "t2i_jax"}


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
    with pytest.raises(ValueError, match="no measure 'fidelty': there are alignment, fidelity"):
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
    assert evaluate.score_during(pipe, others)["score/kid"] < 0, "the same pictures: nearer than two samples are"
