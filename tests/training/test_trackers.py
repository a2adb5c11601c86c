"""Where a run is watched. Weights & Biases and MLflow: acceptance/test_trackers.py."""

import sys

import numpy as np
import pytest

from t2i_jax.training import trackers


def test_a_tracker_without_its_package_is_refused_and_the_others_are_closed(monkeypatch, tmp_path):
    closed = []

    def open_tensorboard(workdir, step, config):
        return trackers.Tracker(lambda *_: None, lambda *_: None, lambda: closed.append(step))

    monkeypatch.setitem(trackers.OPENERS, "tensorboard", open_tensorboard)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as where it is not installed
    with pytest.raises(RuntimeError, match=r"wandb needs wandb: pip install 't2i_jax\[wandb\]'"):
        trackers.open_trackers(("tensorboard", "wandb"), tmp_path, 7, {})
    assert closed == [7]


def test_tensorboard_gets_numbers_and_pictures(tmp_path):
    (tracker,) = trackers.open_trackers(("tensorboard",), tmp_path, 0, {})
    tracker.scalars(1, {"loss": 0.5})
    tracker.image("samples", 1, np.zeros((4, 4, 3), np.uint8))
    tracker.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    content = file.read_bytes()
    assert b"loss" in content and b"samples" in content and b"PNG" in content


def test_names_are_kept_for_each_tracker(tmp_path):
    assert trackers.kept_id(tmp_path, "wandb") is None
    trackers.keep_id(tmp_path, "wandb", "a")
    trackers.keep_id(tmp_path, "mlflow", "b")
    trackers.keep_id(tmp_path, "wandb", "c")
    assert (
        trackers.kept_id(tmp_path, "wandb") == "c" and trackers.kept_id(tmp_path, "mlflow") == "b"
    )
    assert trackers.kept_id(tmp_path, "tensorboard") is None
