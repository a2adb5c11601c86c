"""Bad settings and command lines: exit code, one line that names what is wrong, nothing written.

All rows of a table run in one process, which shows too that neither data nor a device is touched.
"""

import json
import os
import shlex
import subprocess
import sys

import pytest

from tests.bad_input.rows import COMMAND_LINES, CONFIG_FILES, FILES
from tests.bad_input.settings import SETTINGS, SHAPES
from tests.conftest import ROOT

MOST_SECONDS = 2.0
AT_ONCE = [(2, row) for row in COMMAND_LINES] + [(1, row) for row in CONFIG_FILES + SETTINGS]
LATER = [(1, row) for row in SHAPES]


def run_all(rows, folder):
    """The result of each row, in one new process."""
    work = folder / "work"
    work.mkdir()
    for name, text in FILES.items():
        (work / name).write_text(text)
    words = [shlex.split(line.replace("ROOT", str(ROOT))) for _, (line, *_) in rows]
    given = {**os.environ, "PYTHONPATH": str(ROOT), "T2I_JAX_DATA": str(folder / "data")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bad_input.run_rows"],
        input=json.dumps(words),
        capture_output=True,
        text=True,
        env={**given, "XLA_FLAGS": "", "TQDM_DISABLE": "1"},
        cwd=work,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    return run_all(AT_ONCE, tmp_path_factory.mktemp("at_once"))


@pytest.fixture(scope="module")
def later(tmp_path_factory):
    return run_all(LATER, tmp_path_factory.mktemp("later"))


def check(result, code, words):
    said = result["said"]
    assert (result["code"], result["made"]) == (code, []), said
    assert said.count("\n") == 1 and said.endswith("\n"), said
    assert all(word in said for word in words), said
    # The first of a family imports JAX; here the machine may do other work too.
    assert result["seconds"] < 5 * MOST_SECONDS


def ids(rows):
    return [f"{i}-{line.replace('ROOT/configs/', '')}"[:80] for i, (_, (line, *_)) in rows]


@pytest.mark.parametrize("i", range(len(AT_ONCE)), ids=ids(enumerate(AT_ONCE)))
def test_refused_at_once(at_once, i):
    code, (_, *words) = AT_ONCE[i]
    check(at_once[i], code, words)
    assert at_once[i]["touched"] == []


@pytest.mark.parametrize("i", range(len(LATER)), ids=ids(enumerate(LATER)))
def test_refused_before_anything_is_written(later, i):
    code, (_, *words) = LATER[i]
    check(later[i], code, words)
    assert set(later[i]["touched"]) <= {"device"}


def test_most_rows_take_no_time(at_once):
    seconds = sorted(result["seconds"] for result in at_once)
    assert seconds[len(seconds) * 9 // 10] < MOST_SECONDS
