"""Tiny runs from the first command to the last, as a person types them."""

import subprocess
import sys

import numpy as np
from PIL import Image

from tests.conftest import ROOT
from tests.data import test_emoji
from tests.test_commands import fails, run

archives = test_emoji.archives  # a fixture


def test_train_sample_evaluate_again(tmp_path, capsys):
    """The tiny version of a config; for others, see tests/evaluation/test_compare.py."""
    workdir, out = tmp_path / "run", tmp_path / "out"
    run("train", f"--config={ROOT}/configs/shapes_diffusion.py:smoke", f"--workdir={workdir}")
    said = capsys.readouterr().out
    for part in ("parameters", "MiB", "batch: 8", "strict match on test", "minutes in all"):
        assert part in said
    assert (workdir / "evaluation" / "test" / "grid.png").is_file() and (
        workdir / "grids" / "0000006.png"
    ).is_file()
    run(
        "sample",
        f"--workdir={workdir}",
        "--prompt=a large red circle",
        "--prompt=two small green squares",
        "--num=2",
        f"--out={out}",
    )
    assert sorted(p.name for p in out.iterdir()) == ["000.png", "001.png", "002.png", "003.png"]
    run("sample", f"--workdir={workdir}", f"--from={out}/002.png", f"--out={out}")
    assert "the same, bit for bit" in capsys.readouterr().out
    np.testing.assert_array_equal(
        np.asarray(Image.open(out / "002.png")), np.asarray(Image.open(out / "out-002-again.png"))
    )
    run("evaluate", f"--workdir={workdir}", "--split=validation", "--num=8", "--measure=alignment")
    assert "strict match on validation" in capsys.readouterr().out


def test_train_and_caption(tmp_path, capsys):
    """A model that captions, end to end; one that only draws says so."""
    workdir, picture = tmp_path / "run", tmp_path / "red.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    run("train", f"--config={ROOT}/configs/shapes_captioner.py:smoke", f"--workdir={workdir}")
    assert (workdir / "grids" / "0000006.png").is_file() and (
        workdir / "evaluation" / "test" / "grid.png"
    ).is_file()
    capsys.readouterr()
    run(
        "caption",
        f"--workdir={workdir}",
        f"--image={picture}",
        f"--image={picture}",
        "--num=2",
        "--config.caption.beams=2",
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and set(lines) == {lines[0]} and lines[0].startswith(f"{picture}: ")
    assert "it can caption" in fails(capsys, "sample", f"--workdir={workdir}", "--prompt=a")
    assert "no picture nowhere.png" in fails(
        capsys, "caption", f"--workdir={workdir}", "--image=nowhere.png"
    )


def test_prepare_and_train_on_emoji(archives, tmp_path, capsys):
    """configs/emoji.py, tiny, end to end."""
    run("prepare", "--data=emoji", f"--archives={archives}")
    run("train", f"--config={ROOT}/configs/emoji.py:smoke", f"--workdir={tmp_path}/run")
    assert "no exact score" in capsys.readouterr().out
    assert (tmp_path / "run" / "evaluation" / "test" / "grid.png").is_file()


def test_training_works_without_tensorflow(tmp_path):
    """As `auto` does; `tf.data` is refused before the run folder is made."""
    script = f"""
import importlib.machinery, os, sys
class NotInstalled(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        return None if name in ("tensorflow", "keras") else super().find_spec(name, *rest)
sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = NotInstalled
from t2i_jax import config as configs
from t2i_jax.training import loop
def train(*more):
    few = ["data.name=shapes", "data.scenes=16", "text.encoder=none"]
    few += ["train.steps=3", "train.batch_size=8", *more]
    return loop.train(configs.load("{ROOT}/configs/fashion_vae.py:smoke", few), sys.argv[1])
try:
    train("train.reader=tf.data")
except ValueError as error:
    print(error)
print(os.path.exists(sys.argv[1]))
train()
print(os.path.exists(sys.argv[1] + "/checkpoints/3"), "tensorflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[0].startswith("config.train.reader is 'tf.data', and TensorFlow is not installed")
    assert lines[1] == "False" and lines[-1] == "True False"
