"""From starting Python to the end of the first train step, with and without compiled programs.

python -m t2i_jax.benchmark.ours.start ROW FOLDER takes one step of a row's training.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

from t2i_jax.benchmark.ours.train import first_batch, make_product, open_training
from t2i_jax.benchmark.rows import ROWS, Row
from t2i_jax.benchmark.side import Side


def prepare(row: Row, folder, argument: str) -> Side:
    """Return the side of one start.

    argument: "warm" (the compiled programs of a start before are on disk) or "cold" (none are).
    """
    name = next(name for name in ROWS if ROWS[name] is row)
    cache = folder / f"compiled-{argument}"
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}

    def step():
        if argument == "cold":
            shutil.rmtree(cache, ignore_errors=True)
        with tempfile.TemporaryDirectory() as run:
            command = [sys.executable, "-m", "t2i_jax.benchmark.ours.start", name, run]
            subprocess.run(command, env=environment, check=True)

    return Side(step, make_product(), {})


def main() -> None:
    """Take one train step of the row that the command line names."""
    row, folder = sys.argv[1:]
    training = open_training(ROWS[row].config(), Path(folder) / "run")
    batch = training.place.put_batch(first_batch(training.prepared))
    jax.block_until_ready(training.update(training.state, training.frozen, batch))


if __name__ == "__main__":
    main()
