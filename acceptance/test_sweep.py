"""A sweep by the command: resumed where it was cut off, it proposes and finds the same."""

import json
import os
import signal
import subprocess
import sys
import time

import optuna
import pytest
from PIL import Image

from t2i_jax.evaluation import sweep
from tests.conftest import ROOT

SPACE = """'''Learning rate of a tiny model.'''
METRIC = "validation/loss"
DIRECTION = "minimize"

def suggest(trial):
    return {
        "optim.learning_rate": trial.suggest_float("learning_rate", 1e-4, 0.1, log=True),
        "optim.name": trial.suggest_categorical("optimizer", ["adamw", "sgd"]),
    }
"""
SETTINGS = ("train.steps=6", "train.eval_every=2", "train.save_every=2", "model.depth=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "space.py").write_text(SPACE)
    return folder


def command(folder, name, trials=3, *overrides, space="space.py"):
    return [
        *(sys.executable, f"{ROOT}/main.py", "sweep", f"--config={ROOT}/configs/shapes.py:smoke"),
        *(f"--sweep={folder / space}", f"--workdir={folder / name}", f"--trials={trials}"),
        *(f"--config.{each}" for each in (*SETTINGS, *overrides)),
    ]


def run(*arguments, **given):
    return subprocess.run(command(*arguments, **given), capture_output=True, text=True, timeout=600)


def trials_of(folder):
    """(how it ended, settings, value, values on the way) of each trial."""
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{folder}/study.db")
    return [(t.state.name, t.params, t.value, t.intermediate_values) for t in study.trials]


@pytest.fixture(scope="module")
def whole(folder):
    done = run(folder, "whole")
    assert done.returncode == 0, done.stderr
    return folder / "whole", done.stdout


def test_the_best_trial_is_told(whole):
    folder, said = whole
    trials = trials_of(folder)
    assert len(trials) == 3 and said.count("=== trial ") == 3
    assert {trial[0] for trial in trials} == {"COMPLETE"}
    assert len({trial[2] for trial in trials}) == 3
    for i, (_, params, value, on_the_way) in enumerate(trials):
        run_folder = folder / "trials" / f"{i:03}"
        stored = json.loads((run_folder / "run.json").read_text())["config"]["optim"]
        assert (stored["learning_rate"], stored["name"]) == tuple(params.values())
        rows = [json.loads(x) for x in (run_folder / "metrics.jsonl").read_text().splitlines()]
        losses = {row["step"]: row["validation/loss"] for row in rows if "validation/loss" in row}
        assert losses == on_the_way and value == losses[6]
    report = (folder / "report.md").read_text()
    best = min(trials, key=lambda trial: trial[2])
    first = next(line for line in report.splitlines() if "| finished |" in line)
    assert f"{best[2]:.4g}" in first
    assert f"--config.optim.learning_rate={best[1]['learning_rate']}" in report
    assert Image.open(folder / "trials.png").width > 600


def test_killed_and_stopped_it_is_the_same_sweep(whole, folder):
    """kill -9 in the first trial, Ctrl-C in the second; every finished trial is kept."""
    for began, number, code in (("000", signal.SIGKILL, -9), ("001", signal.SIGINT, 130)):
        metrics = folder / "again" / "trials" / began / "metrics.jsonl"
        started = subprocess.Popen(
            command(folder, "again"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 300
        while not (metrics.exists() and metrics.read_text()):
            assert started.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(started.pid, number)
        _, said = started.communicate(timeout=60)
        assert started.returncode == code, said
    done = run(folder, "again")
    assert done.returncode == 0, done.stderr
    assert "=== trial 0" not in done.stdout
    assert trials_of(folder / "again") == trials_of(whole[0])
    more = run(folder, "again", 4)
    assert more.returncode == 0 and more.stdout.count("=== trial ") == 1


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_trial_that_is_worse_than_the_median_is_stopped(direction):
    """At step 2 the others have 0 to 4: 1 is stopped, 3 is not. Nothing is at the last step."""
    sign = 1 if direction == "maximize" else -1
    study = optuna.create_study(direction=direction, pruner=sweep.pruner())
    for value in range(sweep.TRIALS_BEFORE_PRUNING):
        trial = study.ask()
        trial.report(sign * value, 2)
        trial.report(sign * value, 6)
        study.tell(trial, sign * value)
    tell = sweep.watcher(study.ask(), "loss", 6).scalars
    tell(1, {"other": -9.0 * sign})
    tell(2, {"loss": 3.0 * sign})
    tell(6, {"loss": 1.0 * sign})  # the last step
    with pytest.raises(optuna.TrialPruned):
        sweep.watcher(study.ask(), "loss", 6).scalars(2, {"loss": 1.0 * sign})


def test_bad_input(whole, folder):
    refused = [
        (run(folder, "whole", 3, "seed=3"), "holds a sweep with another overrides"),
        (run(folder, "new", 1, "model.dept=3"), "model.dept"),
        (run(folder, "new", 1, space="none.py"), "no sweep file"),
    ]
    for text, message in (
        (SPACE.replace("METRIC", "METRICS"), "must define METRIC"),
        (SPACE.replace('"minimize"', '"least"'), "must be maximize or minimize"),
        (SPACE.replace("suggest(trial)", "propose(trial)"), "suggest"),
        (SPACE.replace("optim.name", "optim.nam"), "optim.nam"),
        (SPACE.replace("suggest_float", "suggest"), "suggest() raises AttributeError"),
        (
            SPACE.replace("validation/loss", "loses"),
            "METRIC is 'loses', and the run measures grad_norm, loss",
        ),
    ):
        (folder / "bad.py").write_text(text)
        name = f"bad_{len(refused)}"
        refused.append((run(folder, name, 1, space="bad.py"), message))
    for done, message in refused:
        assert done.returncode == 1 and message in done.stderr, done.stderr
        assert done.stderr.startswith("sweep: ") and done.stderr.count("\n") == 1
    assert not (folder / "new").exists()
