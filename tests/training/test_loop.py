"""The loop end to end on tiny models: resume, refusal, and everything that can stop a run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scripts.same_run import arrays, differences
from t2i_jax import config as configs
from t2i_jax.core import state
from t2i_jax.families.load import load_trained
from t2i_jax.runs import checkpoint, prepare
from t2i_jax.runs.run_folder import read_run
from t2i_jax.training import loop, programs, start
from tests.conftest import ROOT, flags_for

MAIN = [sys.executable, str(ROOT / "main.py")]


def command(workdir, *overrides, config="shapes"):
    extra = [f"--config.{override}" for override in overrides]
    return [
        *MAIN,
        "train",
        f"--config={ROOT}/configs/{config}.py:smoke",
        f"--workdir={workdir}",
        *extra,
    ]


def quiet_environment():
    """One device, and the session's data and compiled programs."""
    return {**os.environ, "XLA_FLAGS": flags_for(devices=1)}


def finish(workdir):
    """Run the command to its end; what it said is shown if it fails."""
    result = subprocess.run(
        command(workdir, *STEPS), env=quiet_environment(), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]


def assert_same_run(one, other):
    assert differences(one, other) == [] and len(arrays(one)) > 20


STEPS = (
    "train.steps=40",
    "train.save_every=5",
    "train.eval_every=20",
    "train.log_every=3",
    "train.score_every=20",
    "train.reader=threads",  # without TensorFlow, the commands below start in half the time
    "evaluate.num=4",
    "model.depth=1",
    "optim.name=adamw",
)
SMALL = ("model.depth=1", "optim.name=adamw")  # quickly compiled


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "whole"
    finish(workdir)
    return workdir


def kill_when(workdir, condition, number=signal.SIGKILL):
    """Start the run, send it a signal when condition() is true, return exit code and output."""
    process = subprocess.Popen(
        command(workdir, *STEPS),
        env=quiet_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    lines = []
    reader = threading.Thread(target=lambda: lines.append(process.stdout.read()))
    reader.start()
    deadline = time.monotonic() + 120
    while not (met := condition()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(number)
    try:
        process.wait(timeout=120)
    finally:
        process.kill()  # one that hangs would keep the tests for ever
        reader.join()
    assert met, f"the run ended before its moment came: {lines[0].decode()[-2000:]}"
    return process.returncode, lines[0].decode()


def test_killed_twice_stopped_once_and_resumed_is_the_same_run(never_killed, tmp_path):
    """kill -9 before the first checkpoint and during a save, SIGTERM while a grid is drawn.

    The evaluation that was stopped is done again, and no bit of the run differs. For Ctrl-C, see
    tests/bad_input/test_stopping.py; for many more moments, scripts/endurance.py.
    """
    workdir = tmp_path / "killed"
    folder, metrics = workdir / "checkpoints", workdir / "metrics.jsonl"
    assert kill_when(workdir, lambda: metrics.exists() and metrics.read_text())[0] == -9
    left = {p.name for p in folder.iterdir()} if folder.exists() else set()

    def saving():
        return folder.exists() and any(
            "tmp" in p.name and p.name not in left for p in folder.iterdir()
        )

    assert kill_when(workdir, saving)[0] == -signal.SIGKILL
    code, output = kill_when(
        workdir, lambda: "validation/loss" in metrics.read_text(), signal.SIGTERM
    )
    assert code == 128 + signal.SIGTERM and "SIGTERM: saved at step 20" in output
    assert "Traceback" not in output and not list(workdir.glob("checkpoints/20/evaluation.json"))
    finish(workdir)
    assert_same_run(workdir, never_killed)


def test_a_finished_run_can_be_made_longer(never_killed, tmp_path, smoke, capsys):
    workdir = tmp_path / "longer"
    shutil.copytree(never_killed, workdir)
    changes = STEPS[1:]
    with pytest.raises(ValueError, match=r"config.train.steps is 39, the run has 40"):
        loop.train(smoke("shapes", *changes, "train.steps=39"), workdir)
    loop.train(smoke("shapes", *changes, "train.steps=42"), workdir)
    assert "finished at step 40; it goes on to step 42" in capsys.readouterr().out
    assert read_run(workdir)["config"]["train"]["steps"] == 42
    assert checkpoint.last_complete_step(workdir) == 42
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    before = (never_killed / "metrics.jsonl").read_text().splitlines()
    assert lines[: len(before)] == before and json.loads(lines[-1])["step"] == 42


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_size=16", r"config\.train\.batch_size is 16, the run has 8"),
        ("text.vocab_size=300", r"config\.text\.vocab_size is 300"),
        ("data.scenes=72", "the training data is not what it was"),
    ],
)
def test_resuming_something_else_is_refused_before_touching_anything(
    never_killed, override, message
):
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in never_killed.rglob("*")}
    config = configs.load(f"{ROOT}/configs/shapes.py:smoke", [*STEPS, override])
    with pytest.raises(ValueError, match=message):
        loop.train(config, never_killed)
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in never_killed.rglob("*")}


def test_another_tokenizer_is_refused(never_killed, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(never_killed, workdir)
    (workdir / "tokenizer.json").write_text((workdir / "tokenizer.json").read_text() + " ")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not the one"):
        loop.train(configs.load(f"{ROOT}/configs/shapes.py:smoke", STEPS), workdir)


def test_two_players_and_their_statistics_resume_bit_for_bit(smoke, tmp_path, on_one_device):
    """From the checkpoint of step 3 to step 6, against the run that went there at once."""
    config = smoke(
        "shapes_gan",
        "gan.r1=0.0",  # gradients of gradients take a third of the time
        "train.eval_every=100",
        "train.grid=2",
        "train.validation_examples=1",
    )
    loop.train(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "6")
    loop.train(config, tmp_path / "resumed")
    names = arrays(tmp_path / "whole")
    assert any("'stats'" in name and "discriminator" in name for name in names)
    assert_same_run(tmp_path / "resumed", tmp_path / "whole")


def test_a_second_source_and_its_pool_resume_bit_for_bit(smoke, tmp_path, on_one_device):
    """From the checkpoint of step 3 to step 6, with the orders of both sources and the pools."""
    config = configs.copy(smoke("emoji_cyclegan", "train.eval_every=0", "model.width=2"))
    shapes = {"name": "shapes", "resolution": 16, "scenes": 20}
    sets = {"first": shapes, "second": shapes}
    config.data = {"name": "unpaired", "resolution": 16, "match": "none", **sets}
    config.lock()
    loop.train(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "6")
    loop.train(config, tmp_path / "resumed")
    assert any("'pool'" in name for name in arrays(tmp_path / "whole"))
    assert_same_run(tmp_path / "resumed", tmp_path / "whole")


def test_init_from_starts_with_the_other_runs_weights(never_killed):
    ema, _ = checkpoint.restore_ema(never_killed)
    fresh = state.TrainState(
        0, jax.tree.map(jnp.zeros_like, ema["params"]), {}, {}, {"params": None, "extra": {}}, None
    )
    started = start.start_from(fresh, ema["params"], {}, "runs/a")
    jax.tree.map(np.testing.assert_array_equal, started.params, ema["params"])
    jax.tree.map(np.testing.assert_array_equal, started.ema["params"], ema["params"])
    wrong = fresh._replace(params={"model": {"net": {"x": jnp.zeros(3)}}})
    with pytest.raises(ValueError, match="do not fit this model"):
        start.start_from(wrong, ema["params"], {}, "runs/a")


def test_signals_are_caught_twice_and_handlers_are_restored(capsys):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop, release = loop.catch_signals()
    signal.raise_signal(signal.SIGTERM)
    assert (
        stop == ["SIGTERM"] and "stopping as soon as this step is saved" in capsys.readouterr().out
    )
    signal.raise_signal(signal.SIGINT)
    assert "once more stops at once" in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    release()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    smoke, tmp_path, monkeypatch, on_one_device
):
    config = smoke("shapes", "train.log_every=1", "train.save_every=2", *SMALL)
    real = load_trained

    def poisoned(config, axis_name=None):
        family = real(config, axis_name)

        def loss(params, ctx):
            per_example, rest = family.losses["model"](params, ctx)
            return jax.numpy.where(ctx.step == 4, jax.numpy.nan, per_example), rest

        return family._replace(losses={"model": loss})

    monkeypatch.setattr(prepare, "load_trained", poisoned)
    with pytest.raises(
        loop.Stopped, match="loss is nan at step 5; the last good checkpoint is of step 4"
    ):
        loop.train(config, tmp_path / "run")
    ema, step = checkpoint.restore_ema(tmp_path / "run")
    assert step == 4 and all(np.isfinite(x).all() for x in jax.tree.leaves(ema["params"]))


def test_weights_that_are_not_finite_are_never_saved(smoke, tmp_path, monkeypatch, on_one_device):
    """The loss of the step that made them was finite."""
    config, real = smoke("shapes", "train.save_every=2", *SMALL), programs.make_optimizers

    def poisoned(config, family):
        infinite = optax.GradientTransformation(
            lambda params: jnp.int32(0),
            lambda updates, count, params: (
                jax.tree.map(lambda x: jnp.where(count == 3, jnp.inf, x), updates),
                count + 1,
            ),
        )
        return {"model": optax.chain(real(config, family)["model"], infinite)}

    monkeypatch.setattr(programs, "make_optimizers", poisoned)
    with pytest.raises(
        loop.Stopped, match="not finite after step 4; the last good checkpoint is of step 2"
    ):
        loop.train(config, tmp_path / "run")


def test_a_full_disk_ends_the_run_and_names_path_and_step(never_killed, tmp_path):
    """RLIMIT_FSIZE imitates a full disk: no file may exceed 12 KiB; metrics fit, weights do not."""
    workdir = tmp_path / "run"
    shutil.copytree(never_killed, workdir)
    (workdir / "run.json").write_text(
        (workdir / "run.json").read_text().replace('"steps": 40', '"steps": 44')
    )
    script = (
        "import resource, sys, t2i_jax.commands; sys.path.insert(0, sys.argv[1]);"
        "from t2i_jax import cli; import t2i_jax.evaluation.during_training;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (12288, 12288)); cli.main(sys.argv[2:])"
    )
    arguments = command(workdir, "train.steps=44", *STEPS[1:])[2:]
    result = subprocess.run(
        [sys.executable, "-c", script, str(ROOT), *arguments],
        env=quiet_environment(),
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if line.startswith("train: ")]
    assert len(said) == 1, result.stderr[-4000:]
    assert str(workdir) in said[0] and "last good checkpoint is of step 40" in said[0]
    assert checkpoint.restore_ema(workdir)[1] == 40


def test_batch_must_divide(smoke, tmp_path):
    with pytest.raises(
        ValueError, match=r"8 devices x train\.accumulate 1: the nearest that does is 16"
    ):
        loop.train(smoke("shapes", "train.batch_size=12"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_metrics_are_means_since_the_last_line_and_nothing_else(never_killed):
    rows = [json.loads(line) for line in (never_killed / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert list(losses) == [*range(3, 40, 3), 40] and losses[40] < losses[3]
    for name in ("validation/loss", "score/exact"):
        assert [row["step"] for row in rows if name in row] == [20, 40]
    assert not any("second" in key or "time" in key for row in rows for key in row)
    assert (never_killed / "grids" / "0000040.png").is_file() and read_run(never_killed)["config"][
        "family"
    ] == "autoregressive"
