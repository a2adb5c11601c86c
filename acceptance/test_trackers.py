"""Weights & Biases and MLflow, for real and without a network."""

import os
import subprocess
import sys

import mlflow
import numpy as np
import pytest

from t2i_jax.training.trackers import MLFLOW_STORE, kept_id, open_trackers
from tests.conftest import ROOT

NAMES = ("wandb", "mlflow")
CONFIG = {"family": "gan", "model": {"width": 3}}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


def history(workdir, name="loss"):
    client = mlflow.MlflowClient(f"sqlite:///{workdir}/{MLFLOW_STORE}")
    found = client.get_metric_history(kept_id(workdir, "mlflow"), name)
    return [(each.step, each.value) for each in found]


def test_a_resumed_run_goes_on_in_the_same_place(tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    for steps, since in (((1, 2, 3), 0), ((3, 4), 2)):  # step 3 is computed again
        for tracker in open_trackers(NAMES, workdir, since, CONFIG):
            for step in steps:
                tracker.scalars(step, {"loss": 1 / step})
            tracker.image("samples", steps[-1], np.full((8, 8, 3), 90, np.uint8))
            tracker.close()
    assert history(workdir) == [(step, 1 / step) for step in (1, 2, 3, 4)]
    client = mlflow.MlflowClient(f"sqlite:///{workdir}/{MLFLOW_STORE}")
    run = client.get_run(kept_id(workdir, "mlflow"))
    assert run.data.params == {"family": "gan", "model.width": "3"}
    assert run.info.status == "FINISHED" and list((workdir / "mlflow").rglob("*.png"))
    offline = sorted(path.name for path in (workdir / "wandb").glob("offline-run-*"))
    assert len(offline) == 2 and all(x.endswith(kept_id(workdir, "wandb")) for x in offline)
    assert list((workdir / "wandb").rglob("media/images/samples_3_*.png"))
    assert os.listdir(tmp_path) == ["run"]  # nothing lies elsewhere


def test_a_run_is_trained_with_them(tmp_path):
    command = [sys.executable, f"{ROOT}/main.py", "train", "--workdir=run"]
    command += [f"--config={ROOT}/configs/shapes.py:smoke", "--config.train.steps=4"]
    command += ["--config.train.log_every=2", "--config.train.trackers=('wandb','mlflow')"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    lines = [step for step, _ in history(tmp_path / "run")]
    assert lines == [2, 4] and history(tmp_path / "run", "validation/loss")
    assert not (tmp_path / "run" / "tensorboard").exists()
