"""A wheel, built and used outside the checkout: it carries the configs, and finds them by name."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "configs", "t2i_jax")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with an installed wheel, made of a source distribution, as package indexes do."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "dist", "site"))
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, wheels], check=True, cwd=source)
    (archive,) = wheels.glob("*.tar.gz")
    subprocess.run([*pip, "wheel", "--no-deps", f"--wheel-dir={wheels}", archive], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", f"--target={target}", wheel], check=True)
    return target


@pytest.fixture
def command(installed, tmp_path):
    """command("config", ...) runs the installed t2i-jax in an empty folder; returns its output."""

    def run(*arguments):
        env = {**os.environ, "PYTHONPATH": str(installed), "T2I_JAX_DATA": str(tmp_path / "data")}
        done = subprocess.run(
            [installed / "bin" / "t2i-jax", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=env,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_wheel_carries_the_configs(installed, command):
    for file in (ROOT / "configs").glob("*.py"):
        carried = installed / "t2i_jax" / "configs" / file.name
        assert carried.read_text() == file.read_text()
    assert "shapes_diffusion" in command("config")
    assert "autoregressive" in command("config", "--config=shapes:smoke")


def test_the_wheel_carries_a_model_that_draws(command, tmp_path):
    command("sample", "--prompt=a large red circle", "--num=1", "--out=drawn")
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["000.png"]


def test_train_and_draw_by_name(installed, command, tmp_path):
    said = command("train", "--config=shapes:smoke", "--workdir=run")
    assert "strict match on test" in said
    command("sample", "--workdir=run", "--prompt=a large red circle", "--num=2")
    assert len(list((tmp_path / "samples").glob("*.png"))) == 2
