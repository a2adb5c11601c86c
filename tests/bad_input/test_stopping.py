"""Ctrl-C at many moments: exit code 130, one line, and nothing is lost that was said to be saved.

A moment is a function of the program, replaced by one that sends the signal to its own process
before it does its work. The training of one tiny run is stopped several times on its way.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from t2i_jax.data.load import load_source
from t2i_jax.evaluation import classifier
from t2i_jax.runs.checkpoint import last_complete_step, restore_ema
from t2i_jax.training.writers import Writers
from tests.bad_input.run_rows import run_row
from tests.conftest import ROOT, training_on_one_device

TRAIN = [
    "train",
    f"--config={ROOT}/configs/shapes.py:smoke",
    "--workdir=run",
    "--config.model.depth=1",
    "--config.optim.name=adamw",
]
# (name of a function that a command calls, command line)
MOMENTS = [
    ("t2i_jax.config.files.read", [*TRAIN[:2], "--workdir=new"]),
    ("t2i_jax.runs.prepare.load_source", [*TRAIN[:2], "--workdir=new"]),
    ("t2i_jax.runs.prepare._make_frozen", [*TRAIN[:2], "--workdir=new"]),
    ("t2i_jax.runs.trained.read_variables", ["sample", "--workdir=run", "--prompt=a"]),
    ("t2i_jax.pipeline.run_ability", ["sample", "--workdir=run", "--prompt=a"]),
    ("t2i_jax.pipeline.run_ability", ["encode", "--workdir=run", "--image=run/grids/0000004.png"]),
    ("t2i_jax.evaluation.evaluate.make_pictures", ["evaluate", "--workdir=run"]),
    ("t2i_jax.evaluation.evaluate.take", ["evaluate", "--workdir=run", "--measure=alignment"]),
    (
        "t2i_jax.evaluation.evaluate.write_report",
        ["evaluate", "--workdir=run", "--measure=alignment"],
    ),
    ("t2i_jax.evaluation.truth.load_source", ["evaluate", f"--config={ROOT}/configs/shapes.py"]),
    ("t2i_jax.evaluation.compare.load_source", ["compare", "run", "--measure=alignment"]),
    ("t2i_jax.config.listing.read", ["config", f"--config={ROOT}/configs/shapes.py"]),
]


def press(times=1):
    gc.disable()  # else it may run JAX's callback just now, in which errors are lost
    try:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # the handler runs before the next line
    finally:
        gc.enable()


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """The current folder of all tests of this file.

    Ctrl-C raises KeyboardInterrupt in them, also where the shell that started them ignores it.
    """
    before, folder = os.getcwd(), tmp_path_factory.mktemp("stopping")
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    yield folder
    os.chdir(before)
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(scope="module")
def stopped(folder):
    """{what happened: (result, last complete step)} of one run that is stopped on its way."""
    moments = (
        ("once", "progress", 2, 1),
        ("thrice", "progress", 4, 3),
        ("while it evaluates", "image", 4, 1),
        ("at the end", "progress", 6, 1),
    )
    found = {}
    for name, method, at, times in moments:
        work = getattr(Writers, method)

        def stop(self, *args, work=work, at=at, times=times):
            work(self, *args)
            if at in args:
                press(times)

        setattr(Writers, method, stop)
        try:
            with training_on_one_device():
                found[name] = run_row(TRAIN), last_complete_step("run")
        finally:
            setattr(Writers, method, work)
    return found


@pytest.mark.parametrize(
    ("name", "step", "words"),
    [
        ("once", 3, "train: SIGINT: saved at step 3; the same command goes on from there\n"),
        ("thrice", 3, "train: stopped by Ctrl-C\n"),
        ("while it evaluates", 4, "train: SIGINT: saved at step 4; the same command goes on"),
        ("at the end", 6, "train: SIGINT: saved at step 6; the same command goes on from there\n"),
    ],
)
def test_in_the_loop(stopped, name, step, words):
    """What was said to be saved is there, and the same command went on from it."""
    result, last = stopped[name]
    assert (result["code"], last) == (130, step)
    assert result["said"].startswith(words) and result["said"].count("\n") == 1
    assert not any(path.startswith("run/evaluation") for path in result["made"])


def test_the_checkpoint_is_whole_after_all_that(stopped):
    ema, step = restore_ema("run")
    assert step == 6 and "model" in ema["params"]
    text = Path("run/metrics.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    # Evaluated once at 4, though twice begun; left to the next command at 6.
    assert [row["step"] for row in rows if "validation/loss" in row] == [4]


@pytest.mark.parametrize(("moment", "words"), MOMENTS)
def test_elsewhere(stopped, moment, words, monkeypatch):
    """Nothing is left half done."""
    module, _, name = moment.rpartition(".")
    place = importlib.import_module(module)
    work, pressed = getattr(place, name), []

    def stop(*args, **kwargs):
        pressed.append(moment)
        press()
        return work(*args, **kwargs)

    monkeypatch.setattr(place, name, stop)
    result = run_row(words)
    assert pressed and (result["code"], result["made"]) == (130, [])
    assert result["said"] == f"{words[0]}: stopped by Ctrl-C\n"


def test_while_a_classifier_is_fitted(data_folder, smoke, monkeypatch, capsys):
    """Why it is fitted is said, and no file of half a fit is left."""

    class Data:
        fingerprint, labels, classes = "stopping", [0, 1] * 8, ("a", "b")
        read = load_source(smoke("shapes").data, "train").read

    def stop(*args):
        press()

    monkeypatch.setattr(classifier, "_step", stop)
    with pytest.raises(KeyboardInterrupt):
        classifier.cached_classifier(Data)
    assert "fitting a classifier of 2 classes to 16 true pictures" in capsys.readouterr().out
    assert not list(data_folder.glob("classifiers/*"))


@pytest.mark.parametrize("moment", [0.5, 2.0, "data: "])
def test_while_the_program_starts(moment, folder):
    """After so many seconds, and while the step is compiled, which follows the line "data: "."""
    workdir = f"early_{moment}"
    started = subprocess.Popen(
        [sys.executable, ROOT / "main.py", *TRAIN[:2], f"--workdir={workdir}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    if isinstance(moment, str):
        while not started.stdout.readline().startswith(moment):
            assert started.poll() is None
    time.sleep(moment if isinstance(moment, float) else 0.3)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert (started.returncode, said.strip()) == (130, "train: stopped by Ctrl-C")
    # After two seconds a fast machine may have made the run folder already.
    assert (folder / workdir).exists() or isinstance(moment, float)


def test_while_jax_is_imported():
    """An exception there would crash JAX's C++ code, so the program ends without one."""
    code = """
import os, signal, sys
from t2i_jax.core import ctrl_c

class Press:
    def find_spec(self, name, path, target=None):
        if name == "jaxlib._jax":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, ctrl_c.interrupt)
sys.meta_path.insert(0, Press())
import jax
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, "train"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (ended.returncode, ended.stderr) == (130, "train: stopped by Ctrl-C\n")
