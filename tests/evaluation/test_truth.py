"""The measures judge true pictures."""

import numpy as np
import pytest

from t2i_jax.data.load import load_source
from t2i_jax.evaluation import picture_features
from t2i_jax.evaluation.truth import evaluate_truth
from t2i_jax.features.extractor import Extractor
from t2i_jax.metrics import alignment
from tests.evaluation.fakes import use_sources


def test_true_pictures_with_their_own_and_with_shuffled_captions(smoke):
    text = evaluate_truth(smoke("shapes"), "test", 60)
    own, shuffled = text.split("\n\n")
    assert "100.0 %" in own.splitlines()[1] and float(shuffled.splitlines()[1].split()[1]) < 10


def test_missing_weights_are_said(smoke, monkeypatch):
    config = smoke("shapes")
    real = load_source(config.data, "test")
    cats = real._replace(captions=[f"my cat {i}" for i in range(16)])
    use_sources(monkeypatch, lambda *_: cats)
    with pytest.raises(FileNotFoundError, match="prepare --weights=efficientnet_lite0"):
        evaluate_truth(config, "test", 8)


def test_without_a_grammar_real_and_noisy_pictures_are_measured(smoke, monkeypatch):
    """Pixels as features: more noise is further away, and other real pictures are not."""
    pixels = Extractor(
        "Pixels",
        "none",
        {},
        lambda weights, x: {"features": x.reshape(len(x), -1).astype(np.float32) / 255},
    )
    monkeypatch.setattr(picture_features, "load_extractor", lambda config: pixels)
    monkeypatch.setattr(alignment, "can_score", lambda captions: False)
    text = evaluate_truth(smoke("shapes", "data.scenes=240"), "test")
    kid = {line[:30].strip(): float(line[30:].split()[0]) for line in text.splitlines()[1:]}
    assert max(kid["real pictures of validation"], kid["test, grain_8"]) < 0 < kid["test, grain_32"]
    assert "Pixels, none" in text and len(kid) == 5
