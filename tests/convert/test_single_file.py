"""A whole model in one file: everything gets to its place, and what is not in the file is known."""

import re

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import t2i_jax
from t2i_jax.convert import single_file
from t2i_jax.convert.load import find_importer
from t2i_jax.families.published_autoencoder import make_autoencoder
from t2i_jax.families.stable_diffusion import make_net
from t2i_jax.models import autoencoder_kl, clip, sd_unet
from t2i_jax.text import clip_tokenizer
from t2i_jax.text.clip import make_towers
from t2i_jax.weights import single_file as names
from tests.tiny_stable_diffusion import make_model
from tests.weights.original_names import original_arrays


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def file(model, tmp_path, monkeypatch):
    """A file of `model`, whose sizes stand for those of Stable Diffusion 1."""
    return write(model, "SD1", tmp_path, monkeypatch)


def write(model, variant, folder, monkeypatch):
    """A file of a model with one text encoder, whose sizes then stand for those of `variant`."""
    nets = {"unet": make_net(model.config), "vae": make_autoencoder(model.config)}
    ((name, (tower, _)),) = names.ENCODERS[variant].items()
    nets[name] = make_towers(model.config.text)["text_encoder"][0]
    params, _, frozen = getattr(model, "variables", None) or (model.params, {}, model.frozen)
    params = {"unet": params["model"]["net"], "vae": frozen["first_stage"]}
    params[name] = frozen["text"]["text_encoder"]

    def fields(net):
        skipped = ("parent", "name", "dtype", "remat")
        return {n: getattr(net, n) for n in type(net).__dataclass_fields__ if n not in skipped}

    monkeypatch.setattr(sd_unet, "VARIANTS", {variant: fields(nets["unet"])})
    monkeypatch.setattr(autoencoder_kl, "VARIANTS", {"SD": fields(nets["vae"])})
    monkeypatch.setattr(clip, "TEXT_VARIANTS", {tower: fields(nets[name])})
    monkeypatch.setattr(clip_tokenizer, "of_package", lambda: model.tokenizer)
    path = folder / "model.safetensors"
    arrays = original_arrays(variant, nets, params)
    save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, path)
    return path


def test_a_file_is_the_model_that_it_was_written_of(model, file):
    found = find_importer(file).read()
    for ours, theirs in ((found.params, model.params), (found.frozen, model.frozen)):
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert found.config.text.towers.to_dict() == {
        "text_encoder": {**found.config.text.towers.text_encoder, "hidden": -1, "pad": 513}
    }
    assert found.config.sample.to_dict().items() >= {"guidance": 7.5, "width": 128}.items()
    assert found.config.diffusion.scheduler["_class_name"] == "PNDMScheduler"
    assert found.config.diffusion.scheduler["prediction_type"] == "epsilon"


def test_half_precision(file):
    found = find_importer(file).read("bfloat16")
    assert {str(x.dtype) for x in jax.tree.leaves(found.params)} == {"bfloat16"}
    assert found.config.model.dtype == found.config.vae.dtype == "bfloat16"
    with pytest.raises(ValueError, match="dtype is 'int8': it can be float32"):
        find_importer(file).read("int8")


@pytest.mark.parametrize(
    ("step", "yaml", "prediction", "side"),
    [
        (None, "", "v_prediction", 96),
        (875_000, "", "epsilon", 64),
        (220_000, "", "v_prediction", 96),
        (220_000, "model:\n  params:\n    beta: 1\n", "epsilon", 96),
        (875_000, 'model:\n  params:\n    parameterization: "v"\n', "v_prediction", 64),
    ],
)
def test_what_version_2_predicts(tmp_path, step, yaml, prediction, side):
    path = tmp_path / "model.safetensors"
    if yaml:
        path.with_suffix(".yaml").write_text(yaml)
    stored = {} if step is None else {"global_step": np.array(step)}
    scheduler, found = single_file._scheduler(path, "SD2", stored)
    assert (scheduler["prediction_type"], found) == (prediction, side)


def test_what_is_refused(file, tmp_path):
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match=r"model.ckpt is a pickle, which could run any code"):
        t2i_jax.load(pickle)
    other = tmp_path / "other.safetensors"
    save_file({"lora.up": np.zeros(2, np.float32)}, other)
    with pytest.raises(ValueError, match="is no whole Stable Diffusion 1, 2 or XL"):
        t2i_jax.load(other)
    with pytest.raises(ValueError, match="a published model in one file: convert it to a run"):
        find_importer(file).check(None)
    file.with_suffix(".yaml").write_text("parameterization: x0")
    with pytest.raises(ValueError, match="has parameterization 'x0': it can be v, eps"):
        t2i_jax.load(file)


def test_the_tokenizer_has_to_be_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    said = re.escape("prepare --weights=clip_tokenizer")
    with pytest.raises(FileNotFoundError, match=said):
        clip_tokenizer.of_package()
