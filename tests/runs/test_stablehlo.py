"""An exported sampler draws the pipeline's pictures in a process that cannot import t2i_jax."""

import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import export

from t2i_jax import cli, pipeline
from t2i_jax import config as configs
from t2i_jax.runs import stablehlo
from t2i_jax.runs.stablehlo import PROGRAM
from tests.conftest import ROOT, write_untrained_run

ONE = ("sample.candidates=1",)
CAPTIONS = ["a large red circle", "two small blue squares", "", "a green cross on the left"]
# Where the project is installed, Python is told that it is not.
BEFORE = """
import sys
sys.modules["t2i_jax"] = None
try:
    import t2i_jax
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("t2i_jax can be imported")
"""
# The same program with another seed, place and setting; and nothing else was imported.
AFTER = """
guidance = settings["guidance"] + 1
how = (np.uint32(4_000_000_000), np.int32(4), {**settings, "guidance": guidance})
np.save("others.npy", draw(weights, tokens, mask, *how))
assert draw._cache_size() == 1
others = {"flax", "optax", "orbax", "safetensors", "tokenizers", "PIL", "tensorflow"}
assert not others & set(sys.modules), others & set(sys.modules)
assert [name for name in sys.modules if name.startswith("t2i_jax")] == ["t2i_jax"]
"""


def with_noise(params):
    """Return parameters with noise: the last layer of an untrained model is zero."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(x.dtype), params)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{name: (what is exported, the folder of its sampler)}, written by the command line."""
    folder = tmp_path_factory.mktemp("samplers")
    config = configs.load(f"{ROOT}/configs/shapes_diffusion.py:smoke")
    write_untrained_run(config, folder / "diffusion", with_noise)
    sources = {"shapes": "shapes", "diffusion": f"{folder}/diffusion"}
    for name, source in sources.items():
        to = f"--to={folder}/{name}_alone"
        few = [f"--config.{one}" for one in ONE if name == "shapes"]
        cli.main(["export", f"--workdir={source}", "--format=stablehlo", "--batch=4", to, *few])
    return {name: (sources[name], folder / f"{name}_alone") for name in sources}


def programs_of(folder) -> list[str]:
    """Return the Python programs of the README of a sampler's folder."""
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)


def draw_alone(folder, captions) -> tuple[np.ndarray, np.ndarray]:
    """Draw captions with the README's own programs, where t2i_jax cannot be imported.

    Returns the pictures of the README, and those of another seed, place and guidance.
    """
    draw, encode = programs_of(folder)
    names: dict = {}
    exec(encode.replace("tokenizer.json", f"{folder}/tokenizer.json"), names)
    ids = [names["tokenizer"].encode(caption).ids for caption in captions]
    program, count = re.subn(r"enumerate\(\[.*?\]\):", f"enumerate({ids}):", draw)
    assert count == 1
    # -I: no PYTHONPATH, and not this folder.
    command = [sys.executable, "-I", "-c", BEFORE + program + AFTER]
    subprocess.run(command, cwd=folder, check=True)
    return np.load(folder / "pictures.npy"), np.load(folder / "others.npy")


def assert_equal_pictures(name, pictures, expected):
    """All pixels are equal. A diffusion model may round one in a thousand otherwise, by one level.

    It calls its network many times on unrounded numbers, and XLA divides the work of two different
    programs among threads in different ways. `shapes` draws whole tokens.
    """
    if name == "shapes":
        np.testing.assert_array_equal(pictures, expected)
    apart = np.abs(pictures.astype(int) - expected)
    assert apart.max() <= 1 and (apart > 0).mean() < 1e-3


@pytest.mark.parametrize("name", ["shapes", "diffusion"])
def test_the_same_pictures(runs, name):
    source, folder = runs[name]
    pipe = pipeline.load(source, overrides=ONE if name == "shapes" else ())
    expected, _ = pipe.draw(CAPTIONS, seed=0)
    pictures, others = draw_alone(folder, CAPTIONS)
    assert_equal_pictures(name, pictures, expected)
    assert len(np.unique(expected)) > 20  # pictures, not one colour
    guidance = pipe.settings({})["guidance"] + 1
    expected = pipe.draw_rows(CAPTIONS, 4 + np.arange(4), 4_000_000_000, guidance=guidance)
    assert_equal_pictures(name, others, expected)
    assert (others != pictures).any()


def test_the_vocabulary_gives_the_tokens_of_the_pipeline(runs):
    source, folder = runs["shapes"]
    names: dict = {}
    exec(programs_of(folder)[1].replace("tokenizer.json", f"{folder}/tokenizer.json"), names)
    pipe = pipeline.load(source)
    for caption in [*CAPTIONS, "é 你好 <|end|>", "a long caption of very many words " * 4]:
        text = pipe._text([caption])[pipe.config.text.encoder]
        expected = text["tokens"][0][text["mask"][0]].tolist()
        assert names["tokenizer"].encode(caption).ids == expected


def fails(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", *map(str, arguments)])
    assert stop.value.code == 1
    return capsys.readouterr().err


def test_what_cannot_be_exported_is_refused(runs, tmp_path, capsys):
    to, form = f"--to={tmp_path}/new", "--format=stablehlo"
    config = configs.load(f"{ROOT}/configs/shapes_contrastive.py:smoke")
    write_untrained_run(config, tmp_path / "contrastive")
    told = fails(capsys, f"--workdir={tmp_path}/contrastive", form, to)
    assert "this model cannot 'sample'; it can embed_image, embed_text" in told
    told = fails(capsys, "--workdir=shapes", form, to, "--platforms=cpu,gpu")
    assert "there is no 'gpu': there are cpu, cuda, rocm, tpu" in told
    told = fails(capsys, "--workdir=shapes", to, "--batch=4")
    assert "--batch is of a sampler: it needs --format=stablehlo" in told
    assert "leave out --config" in fails(capsys, "--workdir=shapes", to, "--config.sample.top_k=3")
    assert "is not empty" in fails(capsys, "--workdir=shapes", form, f"--to={runs['shapes'][1]}")
    assert not (tmp_path / "new").exists()


def test_a_write_that_fails_leaves_nothing(runs, tmp_path, monkeypatch):
    def fail(path, weights):
        raise OSError("full")

    monkeypatch.setattr(stablehlo, "write_file", fail)
    with pytest.raises(OSError, match="full"):
        stablehlo.export_sampler(runs["diffusion"][0], "last", tmp_path / "new", 1)
    assert list((tmp_path / "new").iterdir()) == []


def test_another_platform_is_refused_where_it_runs(runs, tmp_path):
    """It is lowered for a TPU here, and JAX says on the CPU that it cannot run."""
    source, _ = runs["diffusion"]
    to = f"--to={tmp_path}/tpu"
    how = ("--format=stablehlo", "--batch=1", "--platforms=tpu")
    cli.main(["export", f"--workdir={source}", to, *how])
    assert "It runs on:\ntpu." in (tmp_path / "tpu" / "README.md").read_text()
    sampler = export.deserialize(bytearray((tmp_path / "tpu" / PROGRAM).read_bytes()))
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), sampler.in_avals)
    arguments, _ = jax.tree.unflatten(sampler.in_tree, empty)
    with pytest.raises(ValueError, match=r"platforms .*tpu.* used on .*cpu"):
        sampler.call(*arguments)
