"""The command line itself: what it knows, how it starts, and what its help says."""

import subprocess
import sys

import pytest

from t2i_jax import cli, commands
from t2i_jax.core.family import ABILITIES
from t2i_jax.pipeline import Pipeline
from tests.conftest import ROOT

ECHO = """
import os, sys
from t2i_jax import cli
cli.main = lambda argv: print(os.environ.get("GLIBC_TUNABLES"), argv)
cli.run()
"""


def names() -> set[str]:
    """Return the commands of the parser."""
    (sub,) = (action for action in cli.parser()._actions if action.choices)
    return set(sub.choices)


def test_every_command_is_a_function():
    assert all(callable(getattr(commands, name.replace("-", "_"))) for name in names())


@pytest.mark.parametrize("ability", ABILITIES)
def test_every_ability_has_a_command_and_a_method(ability):
    assert ability in names()
    assert callable(getattr(Pipeline, {"sample": "__call__"}.get(ability, ability)))


def test_help_is_readable():
    for arguments in ([], ["train"], ["sample"]):
        said = subprocess.run(
            [sys.executable, ROOT / "main.py", *arguments, "--help"], capture_output=True, text=True
        ).stdout
        assert "--workdir" in said and len(said.splitlines()) < 60


@pytest.mark.parametrize(
    ("environment", "allocator"),
    [
        ({"JAX_PLATFORMS": "cpu"}, "glibc.malloc.hugetlb=1"),
        ({"JAX_PLATFORMS": "cuda,cpu"}, "None"),  # an accelerator's memory is not malloc's
        (
            {"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": "glibc.malloc.check=0"},
            "glibc.malloc.check=0",
        ),
    ],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is the allocator of Linux")
def test_the_allocator_is_set_once_and_only_on_cpu(environment, allocator, tmp_path):
    """The process starts itself again with its own arguments; a user's own setting stays."""
    script = tmp_path / "script.py"
    script.write_text(ECHO)
    environment = {"PATH": "/usr/bin", "PYTHONPATH": str(ROOT), **environment}
    said = subprocess.run(
        [sys.executable, script, "train", "--x=1"], capture_output=True, text=True, env=environment
    ).stdout
    assert said.startswith(allocator) and said.strip().endswith("['train', '--x=1']")


def test_a_lack_of_memory_is_one_line(monkeypatch, capsys):
    for error in (
        MemoryError("Unable to allocate 119. GiB"),
        RuntimeError("RESOURCE_EXHAUSTED: x"),
    ):
        monkeypatch.setattr(commands, "config", lambda *_, error=error: raise_(error))
        with pytest.raises(SystemExit) as stop:
            cli.main(["config", "--config=c.py"])
        said = str(stop.value.code)
        assert str(error) in said and "not enough memory" in said and "\n" not in said


def raise_(error):
    raise error


def test_ctrl_c_that_python_loses_comes_again():
    """A callback of the garbage collector cannot raise: Python would go on after a trace."""
    script = """
import gc, signal, sys, time
from t2i_jax import cli
def lose(*_):
    gc.callbacks.clear()
    signal.raise_signal(signal.SIGINT)
def command(argv):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.callbacks.append(lose)
    try:
        gc.collect()
        time.sleep(20)
    except KeyboardInterrupt:
        sys.exit(130)
cli.main = command
cli.run()
"""
    environment = {"PATH": "/usr/bin", "PYTHONPATH": str(ROOT), "GLIBC_TUNABLES": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=15
    )
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("lose", ["pass", "raise RuntimeError('from C++')"])
def test_ctrl_c_that_a_library_loses_stops_the_command(lose):
    """A callback of XLA's C++ code loses it: the next steps are told, and other errors mean it."""
    script = f"""
import signal, sys
from t2i_jax import cli, commands
from t2i_jax.training.stopping import catch_signals
def train(args, overrides):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        {lose}
    catch_signals()
commands.train = train
sys.argv = ["main.py", "train", "--config=c", "--workdir=w"]
cli.run()
"""
    environment = {"PATH": "/usr/bin", "PYTHONPATH": str(ROOT), "GLIBC_TUNABLES": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "train: stopped by Ctrl-C\n")


def test_an_unknown_ability_or_command_lists_those_there_are(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["paint", "--workdir=x"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and all(f"'{name}'" in said or name in said for name in ABILITIES)
