"""A run without its training, and the models that come with the project."""

from pathlib import Path

import jax
import numpy as np
import pytest

from t2i_jax import cli, pipeline
from t2i_jax import config as configs
from t2i_jax.runs import checkpoint, prepare, run_folder
from tests.conftest import ROOT, write_untrained_run


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(a run, the same exported by the command line)."""
    folder = tmp_path_factory.mktemp("exported")
    write_untrained_run(configs.load(f"{ROOT}/configs/shapes.py:smoke"), folder / "run")
    cli.main(["export", f"--workdir={folder}/run", f"--to={folder}/new/light"])
    return folder / "run", folder / "new" / "light"


def test_the_same_model_in_five_files(exported):
    run, light = exported
    files = sorted(path.name for path in light.rglob("*") if path.is_file())
    (frozen,) = (path.name for path in (run / "frozen").iterdir())
    assert files == sorted(["README.md", frozen, "model.safetensors", "run.json", "tokenizer.json"])
    card = (light / "README.md").read_text()
    assert "# light\n" in card and 'load("light")' in card and "# run\n" not in card
    ours, theirs = run_folder.read_variables(light), run_folder.read_variables(run)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert pipeline.load(light).weights == pipeline.load(run).weights
    assert pipeline.load(light, 0).config == pipeline.load(run).config


def test_an_export_is_exported_again(exported, tmp_path):
    run_folder.export(exported[1], "last", tmp_path / "again")
    before, after = (run_folder.read_run(x) for x in (exported[1], tmp_path / "again"))
    assert before == after and before["step"] == 0


def test_no_training_goes_on_there(exported, smoke):
    with pytest.raises(ValueError, match=r"without its training.*init_from"):
        prepare.prepare_run(smoke("shapes"), exported[1])


def test_another_run_starts_from_it(exported, smoke, tmp_path):
    prepared = prepare.prepare_run(smoke("shapes", f"init_from={exported[1]}"), tmp_path / "run")
    prepared.lock.close()
    frozen = run_folder.read_variables(exported[0]).frozen
    jax.tree.map(np.testing.assert_array_equal, prepared.frozen, frozen)


def test_what_is_not_there_or_not_the_same_is_refused(exported, tmp_path):
    run, light = exported
    with pytest.raises(FileNotFoundError, match="export of step 0 alone, and not of 3"):
        pipeline.load(light, 3)
    with pytest.raises(FileExistsError, match=r"light is not empty: name another --to"):
        run_folder.export(run, "last", light)
    copy = run_folder.export(light, "last", tmp_path / "copy")
    weights = copy / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(ValueError, match="was changed: its content does not have the hash"):
        pipeline.load(copy)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        pipeline.load(copy)


def test_a_published_model_is_found_by_its_name(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "PUBLISHED", exported[1].parent)
    monkeypatch.chdir(tmp_path)
    assert run_folder.published_names() == ["light"]
    assert pipeline.load("light").weights == pipeline.load(exported[0]).weights
    with pytest.raises(FileNotFoundError, match=r"heavy is not a run folder.* are light"):
        pipeline.load("heavy")
    (tmp_path / "light").mkdir()  # such as evaluate writes: still the published one
    assert run_folder.locate("light") == exported[1]
    assert run_folder.locate("./light") == Path("light")
    (tmp_path / "light" / "run.json").write_text("{}")
    assert str(run_folder.locate("light")) == "light"


def test_a_run_that_has_checkpoints_is_read_from_them(exported):
    ema, step = run_folder.read_ema(exported[0])
    assert step == 0 == checkpoint.last_complete_step(exported[0])
    assert set(ema) == {"params", "extra"}
