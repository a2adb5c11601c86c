"""What is stored in the notebooks. acceptance/test_notebooks.py runs them."""

import ast
import re

import nbformat
import pytest

from tests.conftest import ROOT

PATHS = sorted((ROOT / "colabs").glob("*.ipynb"))
MAX_BYTES = 600_000  # so that a notebook shows quickly on a web page
OF_A_MACHINE = re.compile(r"/(?:home|tmp|root|Users|work)/\w")


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def cells(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    return notebook.cells


def test_there_is_one_for_each_workflow():
    assert len(PATHS) >= 5


def test_all_begin_alike(path, cells):
    """With a title, then the cell that installs where nothing is installed."""
    first = nbformat.read(PATHS[0], as_version=4).cells[1]
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert cells[1].source == first.source
    lines = first.source.splitlines()
    assert lines[0].startswith("URL = ") and lines[1].startswith("SMALL = False")
    assert "SMALL" in "".join(cell.source for cell in cells[2:])


def test_the_first_cell_installs_nothing_where_it_is_installed(cells):
    names = {}
    code = cells[1].source.replace("subprocess.run(", "raise_(")
    exec(compile(code, "the first cell", "exec"), names)  # `raise_` is not defined
    assert names["SMALL"] is False


def test_cells_are_short_and_compile(cells):
    for cell in cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)
            assert max(map(len, cell.source.splitlines())) <= 100


def test_outputs_are_stored_and_small(path, cells):
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
    assert "\r" not in str(outputs) and path.stat().st_size < MAX_BYTES


def test_no_path_of_a_machine_is_stored(cells):
    for cell in cells:
        texts = [cell.source] + [
            str(output.get("text", output.get("data", {}).get("text/plain", "")))
            for output in cell.get("outputs", ())
        ]
        assert not any(found := OF_A_MACHINE.search(text) for text in texts), found
