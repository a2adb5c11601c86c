"""Every command of README.md and docs/ runs, in order, on tiny models.

Each page has a folder of its own, with what a reader has before the page: a trained `runs/shapes`,
a folder of captioned pictures, a published model.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acceptance.commands import is_run, lines_of, read, smaller
from t2i_jax import cli
from t2i_jax.convert import diffusers_out
from t2i_jax.evaluation import classifier
from tests.conftest import ROOT
from tests.tiny_stable_diffusion import make_model

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FILE = re.compile(r'```python title="([^"]+)"\n(.*?)```', re.DOTALL)  # that the reader writes
SAYS = {  # what the commands of a page print
    "add_a_family": [
        "imle.candidates",
        "pictures drawn of each caption; the nearest is trained",
        "model: my_project.imle",
        "strict match on test",
    ],
    "README": ["the same, bit for bit", "comparison/report.html", "class accuracy"],
    "stable_diffusion": ["a run with the weights of stable-diffusion-v1-5"],
}
PUBLISHED = "stable-diffusion-v1-5"
GIVEN = {  # runs that a page takes as given, and how they are trained
    "runs/shapes": ["--config=configs/shapes.py:smoke"],
    "runs/shapes_diffusion": ["--config=configs/shapes_diffusion.py:smoke"],
    "runs/other": [
        "--config=configs/shapes.py:smoke",
        "--config.init_from=runs/shapes",
        "--config.lora.rank=2",
        "--config.train.steps=1",
    ],
}


def draw_picture(seed: int) -> Image.Image:
    """Return a picture of random colours: wide for an even seed, and tall for an odd one."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    image = Image.fromarray(pixels).resize((48, 36))
    return image.rotate(90 * (seed % 2), expand=True)


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """A folder with what readers have, as the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "main.py"):
        Path(name).symlink_to(ROOT / name)
    Path("pictures").mkdir()
    for i in range(24):
        draw_picture(i).save(f"pictures/{i}.png")
        Path(f"pictures/{i}.txt").write_text(f"a picture of kind {i % 4}", encoding="utf-8")
    draw_picture(99).save("picture.png")
    monkeypatch.setattr(classifier, "MAX_PICTURES_SEEN", 2560)
    return tmp_path


def provide(arguments) -> None:
    """Make what a command uses and what no command of the page has made."""
    text = " ".join(arguments)
    for name, settings in GIVEN.items():
        made_here = arguments[0] == "train" and f"--workdir={name}" in arguments
        if name in text and not made_here and not Path(name).exists():
            cli.main(["train", *settings, f"--workdir={name}"])
    if PUBLISHED in text and not Path(PUBLISHED).exists():
        diffusers_out.write(make_model(Path("tokenizer")), Path(PUBLISHED))


def run_apart(commands) -> None:
    """Run commands as processes of their own, at once, and wait for all."""
    started = [
        subprocess.Popen(
            [sys.executable, "main.py", *command.arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), **command.variables},
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    for process in started:
        assert process.wait(timeout=300) == 0, process.stderr.read()


def run_here(arguments, capsys) -> None:
    """Run a command. A machine on which archives cannot be fetched skips the rest of its page."""
    try:
        cli.main(arguments)
    except SystemExit:
        error = capsys.readouterr().err
        if "--archives=FOLDER" in error:
            pytest.skip(error)
        raise AssertionError(error) from None


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_runs(page, sandbox, monkeypatch, capsys):
    for name, code in FILE.findall(page.read_text(encoding="utf-8")):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(sandbox)
    waiting, port = [], free_port()
    for line in filter(is_run, lines_of(page)):
        command = smaller(read(line))
        local = [arg.replace("10.0.0.1:1234", f"127.0.0.1:{port}") for arg in command.arguments]
        command = command._replace(arguments=local)
        provide(local)
        print(f"$ {line}")
        if any(arg.startswith("--processes=") for arg in local):
            waiting.append(command)
            if f"--processes={len(waiting)}" in local:
                run_apart(waiting)
                waiting.clear()
                shutil.rmtree("shared")
        elif command.variables:
            run_apart([command])
        else:
            run_here(local, capsys)
    assert not waiting
    said = capsys.readouterr().out
    assert [part for part in SAYS.get(page.stem, ()) if part not in said] == []
