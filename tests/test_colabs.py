"""Every notebook runs, on tiny settings."""

import os

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT, flags_for


@pytest.mark.parametrize(
    "path", sorted((ROOT / "colabs").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_notebook_runs(path, tmp_path, monkeypatch):
    settings = {"ROOT": ROOT, "SETTING": "shapes.py:smoke", "WORKDIR": tmp_path / "run", "NUM": 8}
    for name, value in settings.items():
        monkeypatch.setenv(f"T2I_JAX_{name}", str(value))
    monkeypatch.setenv("XLA_FLAGS", flags_for(devices=1))
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), (
        "clear the outputs before committing"
    )
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    said = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert "strict match on validation" in said and os.path.exists(
        tmp_path / "run" / "evaluation" / "validation" / "grid.png"
    )
