"""The commands as a person types them, and what they say when something is wrong."""

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


def test_train_sample_evaluate_again(tmp_path, capsys):
    """The tiny version of a config, end to end. For other families: evaluation/test_compare.py."""
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
    run(
        "evaluate",
        f"--workdir={workdir}",
        "--split=validation",
        "--num=8",
        "--measure=alignment,reconstruction,fidelity",
    )
    said = capsys.readouterr().out
    assert "strict match on validation" in said and "prepare --weights=efficientnet_lite0" in said


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


def test_train_on_a_folder(pictures, tmp_path, capsys):
    """Unicode, empty and very long captions, a truncated picture: counted and reported."""
    broken = pictures / "bild 3.png"
    broken.write_bytes(broken.read_bytes()[:500])
    run(
        "train",
        f"--config={ROOT}/configs/folder.py:smoke",
        f"--config.data.path={pictures}",
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
