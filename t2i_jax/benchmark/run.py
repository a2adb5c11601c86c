"""Measure rows and write the report."""

import importlib.metadata
import importlib.util
import platform
import tempfile
import time
from datetime import date
from pathlib import Path

from t2i_jax.benchmark import figures, interleave, report
from t2i_jax.benchmark.rows import ROWS, Row, chosen
from t2i_jax.core.files import make_folder
from t2i_jax.core.threads import num_cores

STEPS = 5  # measured in each round
ROUNDS, QUICK_ROUNDS = 5, 2


def benchmark(what: str, out: str, quick: bool) -> str:
    """Measure the rows `what` and write JSON, a table and a plot to the folder `out`.

    what: see `rows.chosen`. quick: fewer rounds.
    The report is written anew after each row. Returns the table.
    Raises ValueError for an unknown row, and, before anything is measured, if a row needs PyTorch
    and there is none.
    """
    names = chosen(what, quick)
    require_torch({name: ROWS[name] for name in names})
    folder = make_folder(out)
    rounds, text, found = QUICK_ROUNDS if quick else ROUNDS, "", {}
    for name in names:
        began = time.monotonic()
        found[name] = measure(name, rounds)
        print(f"{name}: {time.monotonic() - began:,.0f} s", flush=True)
        text = report.write(folder, machine(), found)
    return f"{text}\n{folder}/benchmark.md, benchmark.json, benchmark.png"


def measure(name: str, rounds: int) -> dict:
    """Return the figures of a row, or why it was not measured.

    One row that fails, of a machine with too little memory or of two sides that disagree, does not
    end the others.
    """
    row = ROWS[name]
    if missing := [package for package in row.packages if not is_installed(package)]:
        return {"title": row.title, "skipped": f"needs {', '.join(missing)}"}
    with tempfile.TemporaryDirectory() as folder:
        commands = {side: interleave.command_of(name, side, folder) for side in row.sides}
        try:
            measured = interleave.measure_in_turn(commands, rounds, row.steps or STEPS)
        except (ValueError, RuntimeError) as error:
            return {"title": row.title, "skipped": str(error)}
    return figures.figures(row, measured)


def require_torch(rows: dict[str, Row]) -> None:
    """Raise ValueError, naming the extra, if a row has a twin and PyTorch is not installed."""
    if is_installed("torch"):
        return
    if wanting := [name for name, row in rows.items() if row.twin]:
        alone = ",".join(name for name, row in ROWS.items() if not row.twin)
        raise ValueError(
            f"{wanting[0]} is compared with PyTorch, which is not installed: pip install "
            f'"t2i_jax[bench]", or measure the rows of ours alone, --what={alone}'
        )


def is_installed(package: str) -> bool:
    """Return whether a package can be imported. Imports nothing."""
    return importlib.util.find_spec(package) is not None


def machine() -> dict[str, str]:
    """Return what was measured with: date, processor, cores and versions."""
    packages = [name for name in ("jax", "torch") if is_installed(name)]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return {
        "date": date.today().isoformat(),
        "processor": processor(),
        "cores": str(num_cores()),
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
    }


def processor() -> str:
    """Return the name of the processor, as far as the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
