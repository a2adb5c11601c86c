"""Scores are those of the pictures that were drawn; the ruler measures itself."""

import json

import numpy as np
import pytest

from t2i_jax import evaluate
from t2i_jax.data import source as sources


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
    assert report["drawn"]["n"] == 13 and report["true"]["value"] == 1.0
    assert report["drawn"]["exact"]["value"] == expected
    assert json.loads((tmp_path / "evaluation" / "test.json").read_text()) == json.loads(json.dumps(report))
    assert (tmp_path / "evaluation" / "test.png").is_file()
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
    assert "drawn" not in report and "no exact score" in evaluate.summary(report, tmp_path)
    with pytest.raises(ValueError, match="have no grammar"):
        evaluate.evaluate_truth(config, "test", 4)
    assert np.asarray(real.read(np.arange(2))).shape == (2, 32, 32, 3)
