"""A run in 8 or 4 bits is a run like any other, in a smaller folder."""

import json

import jax
import numpy as np
import pytest

from t2i_jax import cli, pipeline
from t2i_jax.runs import run_folder
from t2i_jax.runs.compressed import compress
from t2i_jax.weights.quantized import quantize_tree, widen_tree
from tests.conftest import write_untrained_run

MODEL = "shapes"  # the one that comes with the project
ONE = ("sample.candidates=1",)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    """{kind: the folder of MODEL in it}, by the command line."""
    folder = tmp_path_factory.mktemp("compressed")
    kinds = ("int8", "int4")
    for kind in kinds:
        cli.main(["compress", f"--workdir={MODEL}", f"--to={kind}", f"--out={folder}/{kind}"])
    return {kind: folder / kind for kind in kinds}


def size_of(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.27), ("int4", 0.16)])
def test_the_weights_are_rounded_and_the_files_small(compressed, kind, share):
    folder, origin = compressed[kind], run_folder.locate(MODEL)
    assert size_of(folder) < share * size_of(origin)
    before, after = run_folder.read_variables(MODEL), run_folder.read_variables(folder)
    rounded = widen_tree(quantize_tree(before.params, kind))
    jax.tree.map(np.testing.assert_array_equal, after.params, rounded)
    jax.tree.map(np.testing.assert_array_equal, after.frozen, before.frozen)  # a codebook
    assert "strict" not in (folder / "README.md").read_text()  # scores of other weights


def test_it_draws_nearly_the_same(compressed):
    """Of 8 bits: the logits differ by little, so most tokens are drawn as before."""
    captions = ["a large red circle", "two small blue squares"]
    folders = (MODEL, compressed["int8"])
    of_run, of_eight = (pipeline.load(x, overrides=ONE)(captions).images for x in folders)
    same = [np.mean(np.asarray(a) == np.asarray(b)) for a, b in zip(of_run, of_eight, strict=True)]
    assert min(same) > 0.7, same


def test_it_is_exported_as_it_is(compressed, tmp_path):
    run_folder.export(compressed["int8"], "last", tmp_path / "again")
    for name in ("run.json", "model.safetensors"):
        before, after = (folder / name for folder in (compressed["int8"], tmp_path / "again"))
        assert before.read_bytes() == after.read_bytes()


def test_frozen_parts_are_rounded_too(smoke, tmp_path):
    config = smoke("shapes_diffusion")
    with config.unlocked():
        config.eigenpictures = {"components": 16, "fit_pictures": 16}
        config.model = {"network": "latent_mlp", "width": 16, "depth": 1}
    write_untrained_run(config, tmp_path / "run")
    folder = compress(tmp_path / "run", "last", "int4", tmp_path / "small")[0]
    before, after = (run_folder.read_variables(x).frozen for x in (tmp_path / "run", folder))
    basis, rounded = (x["first_stage"]["basis"] for x in (before, after))
    error = abs(basis - rounded).max(1)
    assert (error > 0).any() and (error < 0.08 * abs(basis).max(1) + 1e-7).all()
    np.testing.assert_array_equal(after["first_stage"]["mean"], before["first_stage"]["mean"])


def fails(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    assert stop.value.code == 1
    return capsys.readouterr().err


def test_what_cannot_be_compressed_is_refused(compressed, tmp_path, capsys):
    out = f"--out={tmp_path}/new"
    again = fails(capsys, "compress", f"--workdir={compressed['int8']}", "--to=int4", out)
    assert "int8 was quantised to int8 already" in again
    assert "compress the run that it was made of" in again
    other = fails(capsys, "compress", f"--workdir={MODEL}", "--to=int3", out)
    assert "no weights in 'int3': there are int8 and int4" in other
    setting = "--config.sample.guidance=2"
    assert "leave out --config" in fails(
        capsys, "compress", f"--workdir={MODEL}", "--to=int8", out, setting
    )
    full = f"--out={compressed['int4']}"
    assert "is not empty" in fails(capsys, "compress", f"--workdir={MODEL}", "--to=int8", full)
    assert not (tmp_path / "new").exists()


def test_a_wrong_kind_in_run_json_is_found(compressed, tmp_path):
    copy = run_folder.export(compressed["int4"], "last", tmp_path / "copy") / "run.json"
    run = json.loads(copy.read_text())
    copy.write_text(json.dumps({**run, "quantized": "int2"}))
    with pytest.raises(ValueError, match="is damaged"):
        run_folder.read_run(copy.parent)
