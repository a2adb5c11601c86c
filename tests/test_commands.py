"""The commands as a person types them, and what they say when something is wrong."""

import sys

import numpy as np
import pytest
from PIL import Image

from t2i_jax import cli
from tests.conftest import ROOT


def run(*arguments):
    cli.main([str(argument) for argument in arguments])


def fails(capsys, *arguments):
    """The message of a command that must end with one."""
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code not in (0, None)
    return f"{stop.value.code} {capsys.readouterr().err}"


def test_serve_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)  # as where it is not installed
    assert "serve needs gradio: pip install 't2i_jax[ui]'" in fails(capsys, "serve", "--workdir=r")


@pytest.fixture
def pictures(tmp_path):
    """A folder of noisy pictures of several sizes with captions beside them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        size = (40 + i, 60, 3)
        Image.fromarray(rng.integers(0, 256, size).astype(np.uint8)).save(folder / f"bild {i}.png")
        (folder / f"bild {i}.txt").write_text(
            ["ein Fuchs 🦊", "猫", "", "word " * 400][i % 4], encoding="utf-8"
        )
    return folder


def test_train_on_a_folder(pictures, tmp_path, capsys, on_one_device):
    """Unicode, empty and very long captions, a truncated picture: counted and reported."""
    broken = pictures / "bild 3.png"
    broken.write_bytes(broken.read_bytes()[:500])
    run(
        "train",
        f"--config={ROOT}/configs/folder.py:smoke",
        f"--config.data.path={pictures}",
        "--config.model.depth=1",
        "--config.optim.name=adamw",
        f"--workdir={tmp_path}/run",
    )
    said = capsys.readouterr().out
    assert "bild 3.png" in said and "captions are empty" in said and "were cut" in said
    assert "no exact score" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.optim.lerning_rate=1"], "did you mean 'optim.learning_rate'"),
        (["--config.data.path=/nowhere/at/all"], "/nowhere/at/all"),
        (["--workdirr=x"], "unknown argument '--workdirr=x'"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path, capsys):
    said = fails(
        capsys,
        "train",
        f"--config={ROOT}/configs/folder.py:smoke",
        f"--workdir={tmp_path}/run",
        *arguments,
    )
    assert message in said and not (tmp_path / "run").exists()


def test_a_folder_without_captions_is_an_error(pictures, tmp_path, capsys):
    for caption in pictures.glob("*.txt"):
        caption.unlink()
    said = fails(
        capsys,
        "train",
        f"--config={ROOT}/configs/folder.py:smoke",
        f"--config.data.path={pictures}",
        f"--workdir={tmp_path}/r",
    )
    assert "NAME.txt" in said and "metadata" in said


def test_other_errors_are_one_line(tmp_path, capsys):
    assert "train with --workdir" in fails(capsys, "sample", f"--workdir={tmp_path}", "--prompt=a")
    assert "no config file" in fails(
        capsys, "train", "--config=configs/shape.py", f"--workdir={tmp_path}"
    )
    assert "evaluate needs" in fails(capsys, "evaluate")
    assert "did you mean 'shapes'" in fails(capsys, "prepare", "--data=shape")


def test_evaluate_the_ruler(capsys):
    run("evaluate", f"--config={ROOT}/configs/shapes.py:smoke", "--num=20")
    assert "shuffled captions" in capsys.readouterr().out
