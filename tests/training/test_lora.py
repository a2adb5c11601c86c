"""A run that trains an adapter: one picture is learned, the base stays, resume is bit-exact."""

import functools
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import t2i_jax
from scripts.same_run import arrays, differences
from t2i_jax import config as configs
from t2i_jax.core.family import parameter_shapes
from t2i_jax.core.importer import Imported
from t2i_jax.families.load import load_family
from t2i_jax.runs import checkpoint
from t2i_jax.runs.converted import convert_out, create_run
from t2i_jax.runs.frozen import load_frozen
from t2i_jax.runs.prepare import prepare_run
from t2i_jax.runs.run_folder import read_run, read_variables
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.training import loop, parallel
from tests.conftest import ROOT
from tests.tiny_stable_diffusion import random_params

CAPTION = "a red corner"
PICTURE = np.full((8, 8, 3), (40, 60, 200), np.uint8)
PICTURE[:4, :4] = (220, 40, 30)
STEPS = 120
LORA = ("lora.rank=4", "lora.paths=mlp|patch|modulation")


@pytest.fixture(scope="module", autouse=True)
def on_one_device():
    with pytest.MonkeyPatch.context() as patch:
        one = functools.partial(parallel.make, devices=jax.devices()[:1])
        patch.setattr(parallel, "make", one)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one picture in each split, and the run of a model that has learned nothing."""
    folder = tmp_path_factory.mktemp("lora")
    for split in ("train", "validation", "test"):
        (folder / "pictures" / split).mkdir(parents=True)
        Image.fromarray(PICTURE).save(folder / "pictures" / split / "a.png")
        (folder / "pictures" / split / "a.txt").write_text(CAPTION)
    return folder


def config_of(folder, *overrides):
    return configs.load(
        f"{ROOT}/configs/shapes_diffusion.py:smoke",
        [
            "data.name=folder",
            f"data.path={folder / 'pictures'}",
            "data.resolution=8",
            "model.depth=1",
            "model.gate_init=0.5",
            "caption_dropout=0.0",
            "sample.guidance=1.0",
            "optim.name=adamw",
            "optim.learning_rate=0.02",
            "optim.weight_decay=0.0",
            "optim.warmup=5",
            "ema_decay=0.9",
            f"train.steps={STEPS}",
            f"train.save_every={STEPS // 2}",
            "train.eval_every=0",
            "train.log_every=20",
            "train.reader=threads",
            "sample.steps=6",
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def base(folder):
    config = config_of(folder)

    tokenizer = tokenizers.train([CAPTION], config.text.vocab_size)
    tokens, _ = tokenizers.encode(tokenizer, [""], config.text.length)
    null = {"transformer": {name: x[0] for name, x in tokens.items()}}
    params = random_params(parameter_shapes(config, load_family(config)), 0)
    create_run(Imported(config, params, {"null_text": null}, tokenizer), folder / "base")
    return folder / "base"


@pytest.fixture(scope="module")
def trained(folder, base):
    """(a run that trained an adapter, the pipeline that `train` returned)"""
    config = config_of(folder, f"init_from={base}", *LORA)
    return folder / "adapter", loop.train(config, folder / "adapter")


def drawn(pipe):
    return np.asarray(pipe(CAPTION, seed=1).images[0], np.float32)


def test_rank_4_learns_one_picture(base, trained):
    workdir, pipe = trained
    before = np.abs(drawn(t2i_jax.load(base)) - PICTURE).mean()
    after = np.abs(drawn(t2i_jax.load(workdir)) - PICTURE).mean()
    print(f"mean difference of levels: {before:.1f} before, {after:.1f} after")
    assert before > 50 and after < 20
    np.testing.assert_array_equal(drawn(t2i_jax.load(workdir)), drawn(pipe))
    assert t2i_jax.load(workdir).weights == pipe.weights != t2i_jax.load(base).weights


def test_only_the_adapter_is_trained_averaged_and_saved(base, trained):
    workdir, _ = trained
    saved = arrays(workdir)
    factors = [name for name in saved if "'down'" in name or "'up'" in name]
    # Parameters, their average, and two of the optimizer.
    ema, _ = checkpoint.restore_ema(workdir)
    assert len(factors) == 4 * len(jax.tree.leaves(ema["params"]))
    assert not any(name.endswith(("['kernel']", "['bias']")) for name in saved)
    whole = read_variables(base).params
    kept = load_frozen(workdir, read_run(workdir)["frozen"])["base"]
    jax.tree.map(np.testing.assert_array_equal, kept, jax.tree.map(np.asarray, whole))


def test_a_resumed_run_is_bit_equal(folder, base, trained):
    workdir, _ = trained
    again = folder / "again"
    shutil.copytree(workdir, again)
    shutil.rmtree(again / "checkpoints" / str(STEPS))
    loop.train(config_of(folder, f"init_from={base}", *LORA), again)
    assert differences(workdir, again) == [] and len(arrays(workdir)) > 20


def test_adapters_are_added_when_drawing(base, trained, tmp_path):
    """One at weight 1 is the run itself; weights add up; at weight 0 it is the base."""
    workdir, pipe = trained
    plain = t2i_jax.load(base)

    def added(*named):
        return t2i_jax.load(base, overrides=[f"lora.add={','.join(named)}"])

    assert added(str(workdir)).weights == pipe.weights
    jax.tree.map(
        np.testing.assert_array_equal,
        added(f"{workdir}:0").variables.params,
        plain.variables.params,
    )
    later = plain.with_lora(f"{workdir}:0.5").with_lora(f"{workdir}:0.5")
    assert later.config.lora.add == f"{workdir}:0.5,{workdir}:0.5" and plain.config.lora.add == ""
    twice = added(f"{workdir}:0.25", f"{workdir}:0.75")
    for each in (twice, later):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
            each.variables.params,
            pipe.variables.params,
        )
    assert plain.with_lora(str(workdir)).weights == pipe.weights
    for named, error, message in (
        (base, ValueError, "is a whole model"),
        (tmp_path / "none", FileNotFoundError, "lora.add: there is no file or run"),
    ):
        with pytest.raises(error, match=message):
            added(str(named))
    with pytest.raises(ValueError, match="no LoRA files of family 'diffusion'"):
        convert_out(str(workdir), "last", str(tmp_path / "x.safetensors"))


def test_a_run_can_start_from_a_run_with_an_adapter(folder, trained):
    """It starts from the merged weights, and does not keep the base."""
    workdir, pipe = trained
    config = config_of(folder, f"init_from={workdir}")
    prepared = prepare_run(config, folder / "onwards")
    prepared.lock.close()
    assert "base" not in prepared.frozen
    jax.tree.map(
        np.testing.assert_array_equal, read_variables(workdir).params, pipe.variables.params
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lora.rank=4"], "lora.rank is 4, and init_from is '': an adapter is trained on"),
        (["lora.add=x"], "lora.add is 'x': it is for drawing"),
        (["init_from=BASE", "lora.rank=4", "lora.paths=nowhere"], "matches no kernel"),
        (["init_from=BASE", "lora.rank=4", "model.width=48"], "do not fit this model"),
    ],
)
def test_what_cannot_be_trained_is_refused(folder, base, overrides, message, tmp_path):
    given = [text.replace("BASE", str(base)) for text in overrides]
    with pytest.raises(ValueError, match=message):
        loop.train(config_of(folder, *given), tmp_path / "run")
    assert not (tmp_path / "run").exists()
