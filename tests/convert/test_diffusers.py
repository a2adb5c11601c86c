"""Published pipelines: out and in again, bit for bit, and what is refused. See also parity/."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import t2i_jax
from t2i_jax import cli
from t2i_jax.convert import diffusers, diffusers_out
from t2i_jax.data.pictures import read_picture
from t2i_jax.families.published_autoencoder import make_latents
from t2i_jax.runs.converted import create_run
from tests.tiny_stable_diffusion import make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    diffusers_out.write(model, folder)
    return folder


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "sd"
    cli.main(["convert", f"--from={folder}", f"--workdir={workdir}"])
    return workdir


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def pictures(drawn):
    return np.stack([np.asarray(image) for image in drawn.images])


def test_what_is_read_is_what_was_written(model, folder):
    found = diffusers.read(folder)
    for ours, theirs in ((found.params, model.params), (found.frozen, model.frozen)):
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    for section in ("model", "vae"):
        own = {name: value for name, value in model.config[section].items() if name != "variant"}
        assert {name: found.config[section][name] for name in own} == own
    assert found.config.diffusion.scheduler == model.config.diffusion.scheduler
    assert found.tokenizer.encode("it's 2 cafés").ids == model.tokenizer.encode("it's 2 cafés").ids


def test_a_folder_draws(folder):
    pipe = t2i_jax.load(folder)
    drawn = pipe("a cat", num=2, seed=3, steps=2)
    assert pictures(drawn).shape == (2, 32, 32, 3) and pictures(drawn).std() > 20
    assert (pictures(drawn)[0] != pictures(drawn)[1]).mean() > 0.5
    np.testing.assert_array_equal(pictures(pipe("a cat", num=2, seed=3, steps=2)), pictures(drawn))
    for change in ({"negative_prompt": "dog"}, {"guidance": 1.0}, {"sampler": "dpmpp_2m"}):
        other = pictures(pipe("a cat", num=2, seed=3, steps=2, **change))
        assert (other != pictures(drawn)).mean() > 0.1, change
    assert pipe("a cat", steps=1, width=40, height=24).images[0].size == (40, 24)


def test_half_of_the_memory_draws_nearly_the_same(folder, run):
    whole, half = t2i_jax.load(folder), t2i_jax.load(folder, dtype="bfloat16")
    sizes, types = [], set()
    for pipe in (whole, half):
        weights = jax.tree.leaves((pipe.variables.params, pipe.variables.frozen["first_stage"]))
        weights += jax.tree.leaves(pipe.variables.frozen["text"])
        types |= {str(x.dtype) for x in weights}
        sizes.append(sum(x.nbytes for x in weights))
    assert types == {"float32", "bfloat16"} and sizes[0] == 2 * sizes[1]
    one, other = (
        pictures(pipe("a cat", num=2, seed=3, steps=2)).astype(int) for pipe in (whole, half)
    )
    assert 0 < np.abs(one - other).mean() < 0.1 * np.abs(one[0] - one[1]).mean()
    with pytest.raises(ValueError, match="'int8': it can be float32, bfloat16, float16"):
        t2i_jax.load(folder, dtype="int8")
    with pytest.raises(ValueError, match="is a run, which has a dtype of its own"):
        t2i_jax.load(run, dtype="bfloat16")


def test_a_new_negative_prompt_compiles_nothing(folder):
    from t2i_jax.pipeline import run_ability

    pipe = t2i_jax.load(folder)
    pipe("a", steps=1)
    before = run_ability._cache_size()
    for negative in ("dog", "blurred, dark", ""):
        pipe("b", steps=1, negative_prompt=negative)
    assert run_ability._cache_size() == before


def test_a_picture_is_drawn_again_from_its_metadata(run, tmp_path):
    pipe = t2i_jax.load(run)
    drawn = pipe("a cat", steps=2, negative_prompt="dog", width=40, height=24, sampler="euler")
    (path,) = drawn.save(tmp_path)
    _, same = pipe.redraw(path)
    assert same


def test_a_run_draws_what_the_folder_draws(run, folder):
    prompts = ["a cat", "in a hat"]
    np.testing.assert_array_equal(
        pictures(t2i_jax.load(run)(prompts, steps=2)),
        pictures(t2i_jax.load(folder)(prompts, steps=2)),
    )


def test_a_run_is_written_as_the_folder_that_it_was(run, folder, tmp_path):
    out = tmp_path / "out"
    cli.main(["convert", f"--workdir={run}", f"--to={out}"])
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.*"))
    assert files == sorted(path.relative_to(out) for path in out.rglob("*.*"))
    for name in files:
        if name.suffix == ".safetensors":
            before, after = load_file(folder / name), load_file(out / name)
            assert before.keys() == after.keys()
            for key in before:
                np.testing.assert_array_equal(before[key], after[key])
        elif name.suffix == ".json":
            assert json.loads((out / name).read_text()) == json.loads((folder / name).read_text())


def test_edit_and_inpaint(run, tmp_path):
    """Strength 0 gives the picture through the autoencoder; a mask keeps the other pixels."""
    pipe = t2i_jax.load(run)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    (through,) = pictures(pipe.edit("a cat", image, strength=0.0, steps=3))
    latents = make_latents(pipe.config, 32, 32)
    stage = pipe.variables.frozen["first_stage"]
    expected = latents.decode(stage, latents.encode(stage, image[None]))
    np.testing.assert_allclose(through, expected[0], atol=1)
    edited = pipe.edit("a cat", image, num=2, strength=0.7, negative_prompt="dog", steps=3)
    assert (pictures(edited)[0] != pictures(edited)[1]).mean() > 0.3
    (path, _) = edited.save(tmp_path)
    with pytest.raises(ValueError, match="was edited"):
        pipe.redraw(path)
    mask = np.zeros((32, 32), bool)
    mask[3:20, 5:] = True  # no border of latents
    (painted,) = pictures(pipe.inpaint("a cat", image, mask, steps=3))
    np.testing.assert_array_equal(painted[~mask], image[~mask])
    assert (painted[mask] != image[mask]).any(-1).mean() > 0.9
    with pytest.raises(ValueError, match=r"strength is 1\.5: it must be from 0 to 1"):
        pipe.edit("a", image, strength=1.5)


def test_edit_inpaint_and_outpaint_in_another_size(run):
    """A picture of another shape stays whole: 40 x 24 of a model of 32 x 32."""
    pipe, size = t2i_jax.load(run), {"width": 40, "height": 24, "steps": 2}
    image = np.random.default_rng(0).integers(0, 256, (48, 80, 3)).astype(np.uint8)
    fitted = read_picture(image, 24, 40)
    (through,) = pictures(pipe.edit("a cat", image, strength=0.0, **size))
    latents = make_latents(pipe.config, 24, 40)
    stage = pipe.variables.frozen["first_stage"]
    expected = latents.decode(stage, latents.encode(stage, fitted[None]))
    np.testing.assert_allclose(through, expected[0], atol=1)
    mask = np.zeros((24, 40), bool)
    mask[:, 20:] = True
    (painted,) = pictures(pipe.inpaint("a cat", image, mask, **size))
    np.testing.assert_array_equal(painted[~mask], fitted[~mask])
    (wider,) = pictures(pipe.outpaint("a cat", image, left=8, **size))
    np.testing.assert_array_equal(wider[:, 8:], read_picture(image, 24, 32))
    with pytest.raises(
        ValueError, match=r"a mask of shape \(32, 32\): this model needs \(24, 40\)"
    ):
        pipe.inpaint("a", image, np.ones((32, 32), bool), **size)
    with pytest.raises(ValueError, match="width"):
        pipe.edit("a", image, width=41)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("unet", "has no unet/: a published pipeline has that part"),
        ("text_encoder", "has no text_encoder/"),
        ("vae/diffusion_pytorch_model.safetensors", "no weights in .*vae: it needs"),
        ("unet/config.json", "no config.json in .*unet"),
        ("tokenizer/merges.txt", "no tokenizer in .*tokenizer"),
    ],
)
def test_a_missing_part_is_named(copy, part, message):
    path = copy / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        t2i_jax.load(copy)


def test_pickles_are_refused(copy):
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"are a pickle \(diffusion_pytorch_model.bin\).* provide"):
        t2i_jax.load(copy)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionPipelin"}, "did you mean 'StableDiff"),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "EulerDiscrete"},
            "did you mean 'EulerDiscreteScheduler'",
        ),
        ("unet/config.json", {"act_fn": "gelu"}, "act_fn"),
        ("unet/config.json", {"cross_attention_dim": 8}, "does not fit|another network"),
    ],
)
def test_what_is_not_supported_is_named(copy, file, change, message):
    path = copy / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        t2i_jax.load(copy)


def test_arrays_that_no_network_uses_are_listed(copy):
    path = copy / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(path), "lora.up": np.zeros(2, np.float32)}, path)
    with pytest.raises(ValueError, match=r"1 not used \(lora.up\)"):
        t2i_jax.load(copy)


def test_half_precision(model, copy, tmp_path):
    """Float16 is read exactly; a variant is found."""
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    half = {name: array.astype(np.float16) for name, array in load_file(path).items()}
    path.unlink()
    save_file(half, path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    found = diffusers.read(copy).params["model"]["net"]
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b.astype(np.float16).astype(np.float32)),
        found,
        model.params["model"]["net"],
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 33}, "width is 33: it must be a multiple of 2, such as 32"),
        ({"sampler": "eular"}, "sampler is 'eular': it must be published"),
        ({"negative": "x"}, "no setting 'negative'"),
        ({"steps": 1001}, "1 to 1000 steps, not 1001"),
    ],
)
def test_wrong_settings(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        t2i_jax.load(folder)("a", **settings)


def test_what_cannot_be_converted(folder, run, tmp_path, capsys):
    def fails(*arguments):
        with pytest.raises(SystemExit):
            cli.main(["convert", *arguments])
        return capsys.readouterr().err

    assert "is no published model" in fails(f"--from={tmp_path}", f"--workdir={tmp_path}/run")
    assert "is not empty" in fails(f"--from={folder}", f"--workdir={run}")
    assert "is not empty" in fails(f"--workdir={run}", f"--to={folder}")
    with pytest.raises(ValueError, match="convert it to a run"):
        diffusers.importer(folder).check(None)


def test_a_second_run_of_the_same_model_has_the_same_weights(model, run, tmp_path):
    create_run(model, tmp_path / "again")
    assert t2i_jax.load(tmp_path / "again").weights == t2i_jax.load(run).weights
