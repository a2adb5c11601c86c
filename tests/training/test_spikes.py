"""A spike of the loss: the run goes back, leaves out what led to it, and stays repeatable."""

import json

import jax
import numpy as np
import pytest

from scripts.same_run import differences
from t2i_jax.data import loader
from t2i_jax.runs import prepare
from t2i_jax.runs.prepare import prepare_run
from t2i_jax.training import loop
from t2i_jax.training.spikes import total_loss

SETTINGS = (
    "model.depth=1",
    "optim.name=adamw",
    "train.steps=6",  # within the first epoch of 64 pictures: none is seen again
    "train.batch_size=8",
    "train.log_every=1",
    "train.save_every=2",
    "train.eval_every=5",
    "train.spike=5",
)
BAD_STEP = 3  # that reads it, counted from 0


@pytest.fixture
def with_a_bad_example(smoke, tmp_path, monkeypatch, on_one_device):
    """Return a config whose batch of step BAD_STEP has an example of a huge loss."""
    config = smoke("shapes", *SETTINGS)
    prepared = prepare_run(config, tmp_path / "prepared")
    prepared.lock.close()
    count = len(prepared.training.source.captions)
    (bad, *_) = loader.examples_at(config.seed, np.arange(8) + 8 * BAD_STEP, count)
    real = prepare.load_trained

    def poisoned(config, axis_name=None):
        family = real(config, axis_name)

        def loss(params, ctx):
            per_example, rest = family.losses["model"](params, ctx)
            return jax.numpy.where(ctx.batch["index"] == bad, 1e3, 1.0) * per_example, rest

        return family._replace(losses={"model": loss})

    monkeypatch.setattr(prepare, "load_trained", poisoned)
    return config


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_the_run_goes_back_and_stays_repeatable(with_a_bad_example, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    loop.train(with_a_bad_example, whole)
    printed = capsys.readouterr().out
    # The last checkpoint before it is of step 2.
    assert printed.count("leaves out") == 1
    assert "before step 4: training goes back to step 2 and leaves out 2 batches" in printed
    losses = [row["loss"] for row in lines(whole) if "loss" in row]
    assert len(losses) == 6 and max(losses) < 3 * min(losses)

    def stop(*arguments):
        raise loop.Stopped("for the test")

    with pytest.raises(loop.Stopped, match="for the test"):
        loop.train(with_a_bad_example, parts, loop.Evaluators(grid=stop))
    capsys.readouterr()
    loop.train(with_a_bad_example, parts)
    assert "leaves out" not in capsys.readouterr().out  # the checkpoint of step 4 knows
    assert differences(whole, parts) == []


def test_the_total_loss_is_the_sum_over_players():
    assert total_loss({"a/loss": 1.0, "b/loss": 2.0, "a/accuracy": 5.0}) == 3.0
    assert total_loss({"loss": 1.5, "grad_norm": 5.0}) == 1.5
