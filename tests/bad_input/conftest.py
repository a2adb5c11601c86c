"""One run folder as training leaves it, and a copy of it for each test to damage."""

import shutil

import jax.numpy as jnp
import pytest

from t2i_jax import config as configs
from t2i_jax import pipeline
from t2i_jax.evaluation import evaluate as scores
from t2i_jax.runs import checkpoint
from t2i_jax.runs.prepare import prepare_run
from t2i_jax.training import parallel
from t2i_jax.training.programs import make_programs
from t2i_jax.training.start import begin
from t2i_jax.training.trackers import open_trackers
from t2i_jax.training.writers import Writers
from tests.bad_input.command import OVERRIDES, SHAPES, run_command


def make_run(config, workdir):
    """Make a run folder with checkpoints 3 and 4.

    Its weights are those of the start: compiling a training step would take most of the time.
    """
    prepared = prepare_run(config, workdir)
    place = parallel.make(config.parallel)
    create = make_programs(prepared, place).create
    with prepared.lock, checkpoint.open_manager(workdir) as manager:
        state = place.take(begin(prepared, manager, create, place).state)
        trackers = open_trackers(config.train.trackers, workdir, 0, {})
        writers = Writers(workdir, 0, 4, 8, trackers=trackers)
        for step in (3, 4):
            checkpoint.save(manager, state._replace(step=jnp.int32(step)), {"pending": []})
            checkpoint.wait(manager)
            writers.progress(step, {"loss": 1.0})
        writers.close()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a run of configs/shapes.py:smoke, a picture drawn by it, and its codes."""
    folder = tmp_path_factory.mktemp("trained")
    make_run(configs.load(SHAPES, OVERRIDES), folder / "run")
    for command in (
        "sample --workdir={folder}/run --prompt='a red circle' --num=1 --out={folder}/drawn",
        "encode --workdir={folder}/run --image={folder}/drawn/000.png --out={folder}/c.npy",
    ):
        ended = run_command(command, folder=folder)
        assert ended.code == 0, ended
    return folder


@pytest.fixture(scope="session")
def loaded(trained):
    """The pipeline of the run."""
    return pipeline.load(trained / "run")


@pytest.fixture
def no_score(monkeypatch):
    """The commands train and evaluate measure nothing: what is tested comes before."""
    monkeypatch.setattr(scores, "evaluate", lambda *arguments: {})
    monkeypatch.setattr(scores, "summary", lambda *arguments: "")


@pytest.fixture
def place(trained, tmp_path):
    """A copy of the folder `trained`, to damage: run/, drawn/000.png, and c.npy."""
    return shutil.copytree(trained, tmp_path / "place")
