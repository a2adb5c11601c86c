"""One budget, one set of measures, one report; an interrupted comparison goes on where it was."""

import dataclasses
import json

import pytest

from t2i_jax import cli as main
from t2i_jax import config, pipeline
from t2i_jax.evaluation import compare
from tests.conftest import ROOT, training_on_one_device

SHAPES, DIFFUSION = f"{ROOT}/configs/shapes.py:smoke", f"{ROOT}/configs/shapes_diffusion.py:smoke"
FEW = ("train.eval_every=0", "train.grid=2", "optim.name=adamw", "model.depth=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two configs, six steps of eight pictures each, compared on 16 captions."""
    out = tmp_path_factory.mktemp("compare") / "out"
    overrides = [f"--config.{few}" for few in FEW]
    asked = ["--measure=alignment,fidelity", "--num=16", f"--out={out}"]
    with training_on_one_device():
        main.main(["compare", SHAPES, DIFFUSION, "--pictures=48", *asked, *overrides])
    return out


def again(folder, subjects=(SHAPES, DIFFUSION), pictures=48, **given):
    return compare.compare(
        list(subjects), folder, pictures=pictures, num=16, overrides=FEW, **given
    )


def test_all_are_trained_and_measured_alike(folder):
    measured = {}
    for name in ("shapes-smoke", "shapes_diffusion-smoke"):
        text = (folder / "runs" / name / "metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert max(line["step"] for line in lines) == 6, "48 pictures in batches of 8"
        results = folder / "measured" / name / "evaluation" / "test"
        measured[name] = json.loads((results / "metrics.json").read_text())
    one, other = measured.values()
    assert one["captions"] == other["captions"]
    assert one["setting"]["data"] == other["setting"]["data"]
    for report in (one, other):
        assert report["alignment"]["drawn"]["n"] == 16
        assert report["alignment"]["true"]["value"] == 1.0
        assert "prepare --weights=efficientnet_lite0" in report["not_measured"]["fidelity"]
    text = (folder / "report.md").read_text()
    assert "| shapes-smoke |" in text and "| shapes_diffusion-smoke |" in text
    assert "trained on 48 pictures" in text
    assert (folder / "report.html").is_file()


def test_it_goes_on_where_it_was(folder, monkeypatch):
    """What is finished is not done again; what was cut off is."""
    began = []
    real = compare.evaluate
    monkeypatch.setattr(
        compare, "evaluate", lambda pipe, at, *rest: began.append(at.name) or real(pipe, at, *rest)
    )
    monkeypatch.setattr(compare, "load_measures", lambda: ("alignment",))
    results = folder / "measured" / "shapes_diffusion-smoke" / "evaluation" / "test"
    (results / "metrics.json").unlink()
    before = (folder / "runs" / "shapes-smoke" / "metrics.jsonl").read_text()
    assert again(folder) == folder / "report.html" and began == ["shapes_diffusion-smoke"]
    assert (folder / "runs" / "shapes-smoke" / "metrics.jsonl").read_text() == before


def test_what_is_left_to_measure(folder):
    """Nothing twice; what lacked weights is tried again; all of it for other weights."""
    asked = ("alignment", "fidelity", "robustness")
    measured = folder / "measured" / "shapes-smoke" / "evaluation" / "test"
    pipe = pipeline.load(folder / "runs" / "shapes-smoke")
    assert compare.left_to_measure(measured, pipe, asked) == ("fidelity", "robustness")
    other = dataclasses.replace(pipe, weights="others")
    assert compare.left_to_measure(measured, other, asked) == asked
    assert compare.left_to_measure(folder / "nowhere", pipe, asked) == asked


def test_a_run_folder_beside_a_config(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "load_measures", lambda: ("alignment",))
    run = folder / "runs" / "shapes-smoke"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    page = compare.compare([str(run), str(run)], tmp_path, num=16)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before, (
        "a run that was given is not written to"
    )
    assert "| shapes-smoke-2 |" in (tmp_path / "report.md").read_text()
    assert "Runs as they were found" in page.read_text()


def test_what_changes_training_is_for_configs_only(folder):
    run, overrides = str(folder / "runs" / "shapes-smoke"), ["train.grid=2", "sample.top_k=3"]
    assert compare.overrides_for_runs([run, SHAPES], overrides) == ["sample.top_k=3"]
    with pytest.raises(ValueError, match=r"train.grid cannot be set for a run that is trained"):
        compare.compare([run], folder / "none", overrides=overrides)


def test_minutes_become_steps(tmp_path, monkeypatch):
    """At 24 pictures/s in batches of 8, half a minute is 90 steps."""

    def brief(config, workdir):
        assert config.train.steps == compare.TRIAL_STEPS
        workdir.mkdir(parents=True)
        speeds = [{"step": 10, "images_per_second": 0.5}, {"step": 20, "images_per_second": 24.0}]
        (workdir / "timing.jsonl").write_text("".join(json.dumps(speed) + "\n" for speed in speeds))

    monkeypatch.setattr(compare, "train", brief)
    assert compare.steps_within(config.load(SHAPES), tmp_path / "x", 0.5, 0) == 90
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_compared_is_refused(folder, tmp_path):
    def anew(subject, **budget):
        return lambda: compare.compare([subject], tmp_path / "x", **budget)

    for message, call in (
        ("holds another comparison .pictures: 48, now 64", lambda: again(folder, pictures=64)),
        ("holds another comparison .asked", lambda: again(folder, [SHAPES])),
        ("under one budget", anew(SHAPES)),
        ("under one budget", anew(SHAPES, minutes=1, pictures=8)),
        ("is neither a run folder", anew(str(tmp_path), pictures=8)),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    other = tmp_path / "other.py"
    text, tiny = (ROOT / "configs" / "shapes.py").read_text(), "recipes.make_tiny(config)"
    assert tiny in text
    other.write_text(text.replace(tiny, f"{tiny}; config.data.scenes = 32"))
    with pytest.raises(ValueError, match="have different data"):
        compare.compare([SHAPES, f"{other}:smoke"], tmp_path / "x", pictures=8)
    assert not (tmp_path / "x").exists(), "nothing was written"
