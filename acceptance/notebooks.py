"""Notebooks of colabs/: run them, and store what they show.

python -m acceptance.notebooks [--whole] NAME ...    # runs colabs/NAME.ipynb and stores its outputs
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

COLABS = Path(__file__).parent.parent / "colabs"
SWITCH = "SMALL = False"  # of the first cell of code
LONGEST_S = 3600


def run(path: Path, folder: Path, small: bool = True):
    """Run a notebook in `folder` and return it, with its outputs.

    small: with its tiny settings. Raises nbclient's CellExecutionError if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    source = first.source
    if small:
        first.source = source.replace(SWITCH, "SMALL = True")
    client = NotebookClient(
        notebook,
        timeout=LONGEST_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    first.source = source
    return notebook


def tidy(notebook) -> None:
    """Join what a cell prints in parts, keep of a progress bar its last state, and no times."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        kept = []
        for output in cell.get("outputs", ()):
            if kept and "text" in output and output.get("name") == kept[-1].get("name"):
                kept[-1].text += output.text
            else:
                kept.append(output)
        for output in kept:
            if "text" in output:
                lines = output.text.rstrip().split("\n")
                output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
        if cell.cell_type == "code":
            cell.outputs = kept


def main(arguments: list[str]) -> None:
    """Run notebooks, in folders that are removed again, and store their outputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--whole", action="store_true", help="as a reader runs it, not tiny")
    args = parser.parse_args(arguments)
    os.environ["PYTHONPATH"] = str(COLABS.parent)
    for name in args.names:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            notebook = run(COLABS / f"{name}.ipynb", Path(folder), small=not args.whole)
        tidy(notebook)
        nbformat.write(notebook, COLABS / f"{name}.ipynb")
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
