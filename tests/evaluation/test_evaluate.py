"""Scores are those of the pictures that were drawn, and metrics.json holds all of them."""

import json

import numpy as np
import pytest

from t2i_jax.data.load import load_source
from t2i_jax.evaluation import picture_features
from t2i_jax.evaluation.evaluate import evaluate, summary
from t2i_jax.evaluation.measure import Measure, load_measures
from tests.evaluation.fakes import COLOURS, Captioner, TruePipeline, use_sources


def replace_measure(monkeypatch, name, run):
    """Let the measure `name` be `run`, which applies to every trial."""
    measure = load_measures()[name]
    usual = Measure(name, measure.order, run, usual=measure.usual)
    monkeypatch.setitem(load_measures(), name, usual)


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (1, 0.0)])
def test_a_perfect_and_a_mistaken_model(smoke, tmp_path, shift, expected):
    config = smoke("shapes", "evaluate.num=13")  # not a multiple of the batch
    pipe = TruePipeline(config, shift)
    report = evaluate(pipe, tmp_path, "test")
    scores, folder = report["alignment"], tmp_path / "evaluation" / "test"
    assert scores["drawn"]["n"] == 13 and scores["true"]["value"] == 1.0
    assert scores["drawn"]["exact"]["value"] == scores["drawn"]["strict"]["value"] == expected
    assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(report))
    with np.load(folder / "pictures.npz") as pictures:
        np.testing.assert_array_equal(pictures["true"], pipe.pictures.read(np.arange(13)))
        assert np.array_equal(pictures["drawn"], pictures["true"]) == (not shift)
    assert (folder / "grid.png").is_file()
    assert f"strict match on test: {expected:.3f}" in summary(report, tmp_path)


def test_captions_without_a_grammar_are_drawn_and_not_scored(smoke, tmp_path, monkeypatch):
    config = smoke("shapes", "evaluate.num=9")
    pipe = TruePipeline(config)
    cats = pipe.pictures._replace(captions=[f"my cat {i}" for i in range(16)])
    use_sources(monkeypatch, lambda *_: cats)
    report = evaluate(pipe, tmp_path, "test")
    assert "alignment" not in report and "no exact score" in summary(report, tmp_path)


def test_metrics_json_says_how_to_do_it_again(smoke, tmp_path):
    """The same setting gives the same report; another seed is another setting."""
    config = smoke("shapes")
    first, again, other = (
        evaluate(TruePipeline(config), tmp_path, num=4, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again and first["setting"]["seed"] != other["setting"]["seed"]
    setting = first["setting"]
    assert setting["config"] == json.loads(json.dumps(config.to_dict()))
    assert setting["data"] == load_source(config.data, "test").fingerprint
    assert setting["num"] == 4 and setting["weights"] == "w"
    assert setting["versions"].keys() >= {"jax", "t2i_jax"}


def test_a_source_of_classes_is_measured_by_them(smoke, tmp_path, monkeypatch):
    config = smoke("shapes")
    pipe = TruePipeline(config)
    labelled = pipe.pictures._replace(labels=[0] * len(pipe.pictures.captions), classes=("a",))
    use_sources(monkeypatch, lambda *_: labelled)
    replace_measure(monkeypatch, "classification", lambda trial: {"of": len(trial.captions)})
    report = evaluate(pipe, tmp_path, num=4)
    assert report["classification"] == {"of": 4} and "alignment" not in report


def test_other_measures_of_the_same_pictures_stay(smoke, tmp_path):
    config = smoke("shapes")
    evaluate(TruePipeline(config), tmp_path, num=4, measures=("alignment",))
    both = evaluate(TruePipeline(config), tmp_path, num=4, measures=("fidelity",))
    assert both["alignment"]["drawn"]["n"] == 4 and "fidelity" in both["not_measured"]
    other = evaluate(TruePipeline(config), tmp_path, num=5, measures=("fidelity",))
    assert "alignment" not in other, "of other pictures"


def test_what_cannot_be_measured_is_said_and_the_rest_is_there(smoke, tmp_path):
    pipe = TruePipeline(smoke("shapes"))
    report = evaluate(pipe, tmp_path, measures=("fidelity", "reconstruction", "alignment"))
    assert report["alignment"]["drawn"]["exact"]["value"] == 1.0
    assert "prepare --weights=efficientnet_lite0" in report["not_measured"]["fidelity"]
    assert "does not reconstruct" in report["not_measured"]["reconstruction"]
    unknown = "no measure 'fidelty': there are alignment, compositional, classification"
    with pytest.raises(ValueError, match=unknown):
        evaluate(pipe, tmp_path / "none", measures=("fidelty",))
    assert not (tmp_path / "none").exists()


def test_what_is_said_of_classes_and_of_shuffled_captions(smoke, tmp_path):
    report = evaluate(TruePipeline(smoke("shapes")), tmp_path, num=16)
    number = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 8}
    recall = {"bag": 0.75, "coat": 0.25, "dress": 0.0}
    report["classification"] = {
        "conditional": True,
        "drawn": {"accuracy": number, "recall": recall, "missing": ["dress"]},
        "real": {"accuracy": {**number, "value": 0.91}},
    }
    said = summary(report, tmp_path)
    assert (
        "class accuracy: 0.500 [0.400, 0.600] of 8 drawn pictures, 0.910 of the real ones; "
        "worst class (dress) 0.000"
    ) in said
    assert "never drawn: dress" in said
    colour = next(line for line in said.splitlines() if line.startswith("  colour"))
    assert colour.startswith("  colour    100.0 % [100.0, 100.0] and ")
    assert colour.endswith(", apart")
    share = {"bag": 0.25, "coat": 0.75}
    report["classification"] = {
        "conditional": False,
        "drawn": {"n": 8, "share": share, "missing": []},
        "real": {},
    }
    said = summary(report, tmp_path)
    assert "classes recognised in 8 drawn pictures: bag 25 %, coat 75 %" in said
    assert "never drawn: none of them" in said


def test_the_exact_score_ends_the_summary(smoke, tmp_path):
    pipe = TruePipeline(smoke("shapes"))
    report = evaluate(pipe, tmp_path, num=4, measures=("alignment", "reconstruction"))
    said = summary(report, tmp_path).splitlines()
    assert said[0].startswith("reconstruction not measured: ")
    assert said[-2].startswith("strict match on test: ") and said[-1].startswith("pictures in ")


def test_a_model_that_only_captions_is_measured_by_its_captions(smoke, tmp_path):
    report = evaluate(Captioner(smoke("shapes")), tmp_path, num=10)
    assert "alignment" not in report and report["captioning"]["agrees"]["value"] == 0.9
    assert report["captioning"]["unparsed"] == 0.1
    assert "captions that are true of their picture: 0.900" in summary(report, tmp_path)
    assert (tmp_path / "evaluation" / "test" / "grid.png").is_file()


OF_OTHER_MODELS = {
    "canaries",
    "captioning",
    "cost",
    "inpainting",
    "reconstruction",
    "upscaling",
    "membership",
    "translation",
    "variations",
    "word_maps",
}


def test_all_measures_of_a_model_that_only_captions(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(picture_features, "load_extractor", lambda config: COLOURS)
    for name in ("cost", "membership"):
        replace_measure(monkeypatch, name, lambda trial: {})  # the fake has no network
    report = evaluate(Captioner(smoke("shapes")), tmp_path, num=10, measures=tuple(load_measures()))
    assert report["captioning"]["agrees"]["value"] == 0.9
    assert "does not reconstruct" in report["not_measured"].pop("reconstruction")
    assert "does not enlarge" in report["not_measured"].pop("upscaling")
    assert "no pictures were planted" in report["not_measured"].pop("canaries")
    assert "does not translate" in report["not_measured"].pop("translation")
    assert "cannot 'explain'; it can caption" in report["not_measured"].pop("word_maps")
    assert "cannot 'inpaint'; it can caption" in report["not_measured"].pop("inpainting")
    assert "no variations of pictures" in report["not_measured"].pop("variations")
    assert report["not_measured"] == dict.fromkeys(
        load_measures().keys() - OF_OTHER_MODELS,
        "this model neither draws nor reconstructs pictures",
    )
