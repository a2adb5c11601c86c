"""Run command lines in one process, and say how each ended.

python -m tests.bad_input.run_rows < [["train", "--workdir=r"], ...] as JSON. Prints a JSON list of
{"code", "said", "made", "seconds", "touched"}, in order: the exit code, or the name of the error;
what was written to stderr; the files and folders that were made; how long it took; and which of
TensorFlow, a device of JAX and the data folder it was the first to use.
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path

from t2i_jax import cli
from t2i_jax.core.files import data_dir


def run_row(words: list[str]) -> dict:
    """Run one command line in the current folder."""
    before, used = set(Path().rglob("*")), touched()
    began, said = time.monotonic(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = exit_code(words)
    made = sorted(map(str, set(Path().rglob("*")) - before))
    seconds = time.monotonic() - began
    return {
        "code": code,
        "said": said.getvalue(),
        "made": made,
        "seconds": seconds,
        "touched": [name for name in touched() if name not in used],
    }


def exit_code(words: list[str]) -> int | str:
    """Return the exit code of a command line, or the kind of the error that it raises."""
    try:
        cli.main(words)
    except SystemExit as stop:
        if isinstance(stop.code, str):  # as the interpreter does
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return 0


def touched() -> list[str]:
    """Return what has been used so far that takes seconds to start, or holds data."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    used = {
        "tensorflow": "tensorflow" in sys.modules,
        "device": bool(bridge and bridge._backends),
        "data": any(path.name != "compiled" for path in data_dir().glob("*")),
    }
    return [name for name, is_used in used.items() if is_used]


if __name__ == "__main__":
    json.dump([run_row(words) for words in json.load(sys.stdin)], sys.stdout)
