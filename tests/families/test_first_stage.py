"""A model trained on the codes of another run is complete without that run's folder."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax import config as configs
from t2i_jax import pipeline
from t2i_jax.core import family as families
from t2i_jax.core.family import Variables
from t2i_jax.core.pictures import to_unit
from t2i_jax.data.load import load_source
from t2i_jax.families import autoencoder, first_stage
from t2i_jax.families.load import load_family
from t2i_jax.runs.run_folder import read_run
from t2i_jax.training.loop import train
from tests.conftest import ROOT, training_on_one_device, write_untrained_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(folder of a VQGAN run, folder and config of an autoregressive run on its codes).

    The first folder was moved away after the second run.
    """
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T2I_JAX_DATA", str(folder / "data"))
        stage = configs.load(f"{ROOT}/configs/shapes_vqgan.py:smoke")
        write_untrained_run(stage, folder / "stage")
        config = second(
            folder / "stage",
            "first_stage.cache=True",
            "train.steps=3",
            "train.eval_every=3",
            "model.depth=1",
            "optim.name=adamw",
        )
        with training_on_one_device():
            train(config, folder / "second")
        shutil.move(folder / "stage", folder / "moved")
        yield folder / "moved", folder / "second", config


def second(run, *overrides):
    return configs.load(f"{ROOT}/configs/shapes.py:smoke", (f"first_stage.run={run}", *overrides))


def test_reconstructions_are_those_of_the_first_stage(runs):
    moved, own, _ = runs
    first, then = pipeline.load(moved), pipeline.load(own)
    images = load_source(first.config.data, "test").read(np.arange(4))
    again = [
        jax.jit(pipe.family.abilities["reconstruct"])(pipe.variables, {"image": images})
        for pipe in (first, then)
    ]
    np.testing.assert_array_equal(*again)
    assert len(then("a large red circle", num=2).images) == 2
    with pytest.raises(ValueError, match="cannot 'sample'; it can decode, encode, reconstruct"):
        first("a large red circle")


def test_it_goes_on_without_the_other_folder(runs, on_one_device):
    _, own, config = runs
    before = read_run(own)
    assert before["config"]["first_stage"]["config"]["family"] == "vqgan"
    # No step is left to do, and nothing is missing.
    assert train(config, own).weights == pipeline.load(own).weights
    with pytest.raises(FileNotFoundError, match="is not a run folder"):
        train(config, own.parent / "another")


def test_cached_codes_are_those_of_the_frozen_weights(runs):
    _, own, config = runs
    pipe = pipeline.load(own)
    files = (own.parent / "data" / "encodings").glob("*/codes.npy")
    kept = [np.load(file)[:8] for file in files]
    training = load_source(config.data, "train")
    codes = jax.jit(pipe.family.abilities["encode"])(
        pipe.variables, {"image": training.read(np.arange(8))}
    )
    # The codes of validation, and those of training.
    assert sorted(np.array_equal(x, codes) for x in kept) == [False, True]


def staged(arg, second="shapes", **data):
    """Return the config of a model on a first stage of `configs/shapes_vqgan.py:arg`.

    The first stage is never trained.
    """
    config = configs.load(f"{ROOT}/configs/{second}.py:smoke")
    with config.unlocked():
        stage = configs.load(f"{ROOT}/configs/shapes_vqgan.py:{arg}").to_dict()
        config.first_stage.update({"run": "runs/stage", "config": stage})
        config.data.update(data)
    return config


def test_latents_need_another_family():
    with pytest.raises(ValueError, match=r"has latents .* train family \"diffusion\" on it"):
        load_family(staged("kl_smoke"))


def test_a_resolution_that_does_not_fit():
    with pytest.raises(ValueError, match="34"):
        load_family(staged("smoke", resolution=34))


def test_codes_of_several_grids_need_next_scale():
    config = staged("smoke")
    with config.unlocked():
        config.first_stage.config.quantizer.scales = (1, 2, 4, 8)
    with pytest.raises(
        ValueError, match=r"are of several grids, and family 'autoregressive' draws those of one"
    ):
        load_family(config)
    with config.unlocked():
        config.family, config.first_stage.config.quantizer.scales = "next_scale", ()
    with pytest.raises(
        ValueError, match=r"are of one grid, and family 'next_scale' draws those of several"
    ):
        load_family(config)


def test_a_run_that_is_no_first_stage():
    config = staged("smoke")
    with config.unlocked():
        config.first_stage.config.family = "diffusion"
    with pytest.raises(
        ValueError, match="runs/stage is a run of family 'diffusion'; it must be of vqgan"
    ):
        load_family(config)


@pytest.mark.parametrize("name", ["shapes_next_scale", "emoji_diffusion"])
def test_a_first_stage_that_is_not_named(name, smoke):
    """Next-scale has no first stage of its own; diffusion then works in pixels."""
    config = smoke(name)
    if name == "emoji_diffusion":
        assert first_stage.load_latents(config).shape == (32, 32, 3)
    else:
        with pytest.raises(
            ValueError,
            match=r"needs config\.first_stage\.run, the folder of a run of family 'vqgan'",
        ):
            load_family(config)


def test_codes_of_several_grids_are_those_of_the_run():
    """`coarse`, at the places of the last grid, is the sum of all other grids."""
    config = staged("scales_smoke", "shapes_next_scale")
    stage = first_stage.load_codes(config, scales=True)
    own = configs.from_json(configs.to_json(config.first_stage.config))
    net, image = (
        autoencoder.make_autoencoder(own),
        np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8),
    )
    params, extra = jax.jit(net.init)(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 4)
    extra = jax.jit(lambda e: net.quantize(params, e, to_unit(image), keys).extra)(extra)
    frozen = {"params": params, "extra": extra}
    codes = jax.jit(stage.encode)(frozen, image)
    assert (
        codes.shape == (4, 1 + 4 + 16 + 64)
        and stage.scales == (1, 2, 4, 8)
        and len(np.unique(codes)) > 4
    )
    reconstruct = autoencoder.make_abilities(net)["reconstruct"]
    want = jax.jit(
        lambda f: reconstruct(Variables({"model": f["params"]}, f["extra"], {}), {"image": image})
    )(frozen)
    np.testing.assert_array_equal(jax.jit(stage.decode)(frozen, codes), want)
    rest = net.compose(params, extra, codes) - net.vectors(params, extra, codes[:, -64:]).reshape(
        4, 8, 8, -1
    )
    coarse = jax.jit(stage.coarse)(frozen, codes)
    np.testing.assert_allclose(coarse[:, -64:].reshape(rest.shape), rest, atol=1e-5)
    np.testing.assert_array_equal(coarse[:, 0], 0)


def test_diffusion_works_in_latents_of_its_first_stage():
    """The network has the shape of latents, which have mean 0 and deviation 1."""
    config = staged("kl_smoke", "shapes_diffusion")
    with config.unlocked():
        config.model.patch = 2
    stage = first_stage.load_latents(config)
    own = load_family(configs.from_json(configs.to_json(config.first_stage.config)))
    text = {
        "transformer": {"tokens": jnp.ones((2, 12), jnp.int32), "mask": jnp.ones((2, 12), bool)}
    }
    batch = {"image": jnp.zeros((2, 32, 32, 3), jnp.uint8), "text": text}
    shapes = jax.eval_shape(load_family(config).init, jax.random.key(0), batch)[0]["model"]["net"]
    assert stage.shape == (8, 8, 4) and shapes["patch_out"]["kernel"].shape[-1] == 2 * 2 * 4
    params, extra = jax.jit(own.init)(jax.random.key(0), batch)
    frozen = {
        "params": params["model"],
        "extra": extra,
        "mean": np.full(4, 0.5),
        "deviation": np.full(4, 2.0),
    }
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    raw = jax.jit(own.abilities["encode"])(families.Variables(params, extra, {}), {"image": image})
    np.testing.assert_allclose(jax.jit(stage.encode)(frozen, image), (raw - 0.5) / 2, atol=1e-6)


def test_the_latents_of_whole_pictures_are_fitted_to_the_runs_own():
    """As many components as the pictures have directions: the pictures come back."""
    config = configs.load(
        f"{ROOT}/configs/folder.py:smoke",
        [
            "data.name=shapes",
            "data.scenes=40",
            "eigenpictures.components=12",
            "eigenpictures.fit_pictures=13",
        ],
    )
    latents = first_stage.load_latents(config)
    source = load_source(config.data, "train")
    frozen = latents.fit(source, None)
    chosen = np.random.default_rng(config.seed).choice(len(source.captions), 13, replace=False)
    pictures = source.read(np.sort(chosen))
    codes = latents.encode(frozen, pictures)
    assert codes.shape == (13, *latents.shape) == (13, 1, 1, 12)
    back = np.asarray(latents.decode(frozen, codes)).astype(int)
    assert abs(back - pictures).max() <= 1
    family = load_family(config)
    assert "eigenpictures" in family.frozen_depends_on
    # Their one cell is the whole picture, so no part of it can be kept.
    assert "edit" in family.abilities and "inpaint" not in family.abilities
