"""Every notebook runs from top to bottom, in its small setting.

tests/test_colabs.py checks what is stored in it.
"""

import pytest

from acceptance.notebooks import COLABS, run, tidy
from tests.conftest import ROOT

SAYS = {  # what one of the last cells prints or shows
    "quickstart": ["the same pictures: True", "strict match on test", "image/png"],
    "own_pictures": ["data: ", "image/png"],
    "families_compared": ["shapes_gan", "shapes_vae", "diffusion", "image/png"],
    "stable_diffusion": ["model_index.json", "the lower half is unchanged: True", "the adapter: "],
    "benchmark": ["cores: ", "drawing 8 pictures token by token", "image/png"],
    "one_device_to_a_mesh": ["batch: 16 over 8", "memory of a device", "all-gather"],
}
NAMES = sorted(path.stem for path in COLABS.glob("*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = run(COLABS / f"{name}.ipynb", tmp_path)
    tidy(notebook)
    said = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert all(part in str(said) for part in SAYS[name])
