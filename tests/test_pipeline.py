"""From a run folder to pictures and words: same seed, same result; no TensorFlow."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import t2i_jax
from t2i_jax import config as configs
from t2i_jax import pipeline
from t2i_jax.data.pictures import read_picture
from t2i_jax.data.provenance import read_metadata, with_metadata
from t2i_jax.families.load import load_family
from tests.conftest import ROOT, write_untrained_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pipeline") / "run"
    write_untrained_run(configs.load(f"{ROOT}/configs/shapes.py:smoke"), workdir)
    return workdir


@pytest.fixture(scope="module")
def pipe(run):
    return t2i_jax.load(run)


def arrays(drawn):
    return np.stack([np.asarray(image) for image in drawn.images])


FREELY = {
    "temperature": 1.0,
    "top_p": 1.0,
    "guidance": 1.0,
}  # an untrained model, so that pictures differ


def test_same_seed_same_pictures(pipe, run):
    first = arrays(pipe("a large red circle", num=4, seed=0, **FREELY))
    assert first.shape == (4, 32, 32, 3) and len({p.tobytes() for p in first}) == 4
    np.testing.assert_array_equal(
        first, arrays(pipe("a large red circle", num=4, seed=0, **FREELY))
    )
    np.testing.assert_array_equal(
        first, arrays(t2i_jax.load(run)("a large red circle", num=4, seed=0, **FREELY))
    )
    assert (first != arrays(pipe("a large red circle", num=4, seed=1, **FREELY))).any()
    np.testing.assert_array_equal(
        first[:2], arrays(pipe("a large red circle", num=2, seed=0, **FREELY))
    )


def test_seed_guidance_temperature_and_caption_compile_nothing(pipe):
    pipe("a", num=2)
    before = pipeline.run_ability._cache_size()
    pipe(
        "two small green squares", num=2, seed=5, guidance=3.0, temperature=0.1, top_k=7, top_p=0.5
    )
    pipe(["猫", ""], seed=9, guidance=1.0)
    assert pipeline.run_ability._cache_size() == before


def test_greedy_ignores_the_seed_and_guidance_matters(pipe):
    same = [arrays(pipe("a large red circle", seed=s, temperature=0.0)) for s in (0, 1)]
    np.testing.assert_array_equal(*same)
    guided = arrays(pipe("a large red circle", num=4, guidance=8.0))
    assert (guided != arrays(pipe("a large red circle", num=4, guidance=1.0))).any()


def test_redraw_is_bit_exact(pipe, tmp_path):
    """From the file alone, whatever size of batch it was drawn in."""
    drawn = pipe(["a large red circle", "ein grüner Ring"], num=3, seed=4, temperature=0.9)
    for path in drawn.save(tmp_path):
        image, same = pipe.redraw(path)
        assert same, path
        np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(path)))
    told = read_metadata(tmp_path / "004.png")
    assert (
        told["prompt"] == "ein grüner Ring"
        and told["seed"] == 4
        and told["settings"]["temperature"] == 0.9
    )
    assert told["weights"] == pipe.weights and told["config"]["family"] == "autoregressive"


def test_redraw_refuses_other_weights_and_other_pictures(pipe, tmp_path):
    (path,) = pipe("a").save(tmp_path)
    told = json.loads(Image.open(path).info["t2i_jax"])
    image = Image.open(path)
    with_metadata(image, {**told, "weights": "0" * 16}).save(tmp_path / "other.png")
    with pytest.raises(ValueError, match="drawn by the weights 0000"):
        pipe.redraw(tmp_path / "other.png")
    reranked = {**told, "config": {**told["config"], "reranker": {"run": "runs/x"}}}
    with_metadata(image, reranked).save(tmp_path / "ranked.png")
    with pytest.raises(
        ValueError, match=r"was chosen with config\.reranker\.run='runs/x', and here it is ''"
    ):
        pipe.redraw(tmp_path / "ranked.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    with pytest.raises(ValueError, match="no t2i_jax metadata"):
        pipe.redraw(tmp_path / "plain.png")


def test_bad_requests(pipe, run, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'temperature'"):
        pipe("a", temprature=1.0)
    with pytest.raises(ValueError, match="nothing to draw"):
        pipe([])
    with pytest.raises(FileNotFoundError, match=r"no run\.json"):
        t2i_jax.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint 77"):
        t2i_jax.load(run, 77)


def test_settings_have_the_type_of_their_default(pipe):
    found = pipe.settings({"guidance": 2, "top_k": 7.0})
    assert found["guidance"] == 2.0 and type(found["guidance"]) is float
    assert found["top_k"] == 7 and type(found["top_k"]) is int
    for value in (1.5, float("nan"), float("inf")):
        with pytest.raises(
            ValueError, match=r"top_k is (1\.5|nan|inf): it is a whole number, such as \d"
        ):
            pipe.settings({"top_k": value})


@pytest.mark.parametrize(
    ("settings", "right"),
    [
        ({"temperature": -1.0}, "at least 0"),
        ({"temperature": float("nan")}, "at least 0"),
        ({"top_p": 2.0}, "from 0.001 to 1"),
        ({"top_k": -3}, "from 0 to 16,777,216"),
        ({"guidance": float("inf")}, "from -1,000 to 1,000"),
        ({"candidates": 0}, "from 1 to 1,024"),
    ],
)
def test_settings_out_of_range_are_refused(pipe, settings, right):
    (name,) = settings
    with pytest.raises(ValueError, match=rf"{name} is .*: it must be {right}"):
        pipe("a", **settings)


def test_a_prompt_that_is_cut_is_told(pipe):
    with pytest.warns(UserWarning, match=r"1 prompt has more than 12 tokens: cut"):
        pipe(["a large red circle", *2 * [40 * "a circle and "]])


def test_a_pipeline_prints_one_line(pipe):
    assert len(repr(pipe)) < 200 and "\n" not in repr(pipe) and "sample" in repr(pipe)


def test_another_number_of_pictures_compiles_nothing(pipe):
    pipe("a", num=4)
    before = pipeline.run_ability._cache_size()
    for num in (1, 2, 3):
        pipe("a", num=num)
    assert pipeline.run_ability._cache_size() == before


def test_pictures_carry_their_metadata_however_they_are_saved(pipe, tmp_path):
    image = pipe("a large red circle", seed=7).images[0]
    image.save(tmp_path / "x.png")
    assert read_metadata(tmp_path / "x.png")["seed"] == 7
    assert pipe.redraw(tmp_path / "x.png")[1]


def test_numbers_of_files_go_on(pipe, tmp_path):
    drawn = pipe("a", num=2)
    names = [path.name for _ in range(2) for path in drawn.save(tmp_path)]
    assert names == ["000.png", "001.png", "002.png", "003.png"]


@pytest.mark.parametrize("seed", [-1, 2**32, 2**40, 0.5])
def test_seeds_that_would_fold_onto_others_are_refused(pipe, seed):
    with pytest.raises(ValueError, match="it is a whole number from 0 to 4294967295"):
        pipe("a", seed=seed)


def test_what_only_training_could_use_is_refused(run):
    for override in ("seed=3", "train.steps=5", "model.width=64"):
        with pytest.raises(ValueError, match="cannot be set for a run that is trained already"):
            t2i_jax.load(run, overrides=[override])


def test_overrides(run):
    assert (
        t2i_jax.load(run, overrides=["sample.temperature=0.25"]).settings({})["temperature"] == 0.25
    )
    with pytest.raises(ValueError, match="did you mean"):
        t2i_jax.load(run, overrides=["sample.temprature=0.25"])


def test_pictures_do_not_depend_on_the_others_in_the_batch(pipe):
    alone, _ = pipe.draw(["a large red circle"], seed=3)
    among, _ = pipe.draw(["a large red circle", "x", "", "two small green squares"], seed=3)
    assert (
        np.mean(alone[0] != among[0]) < 0.2
    )  # bit-equality holds for equal batch sizes; a near tie may fall otherwise


def test_no_tensorflow_torch_or_tfds_is_imported(run):
    """In a process where importing them fails: import, load, sample."""
    script = f"""
import sys
blocked = "tensorflow tensorflow_datasets torch transformers diffusers tensorboardX"
for name in blocked.split():
    sys.modules[name] = None
import t2i_jax
pipe = t2i_jax.load({str(run)!r})
print(pipe("a large red circle", num=2).images[0].size)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "(32, 32)", result.stderr


def test_import_is_light():
    script = "import sys, t2i_jax; print('jax' in sys.modules, 'tensorflow' in sys.modules)"
    assert subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    ).stdout.split() == ["False", "False"]


def test_weights_hash_names_the_weights(pipe):
    from t2i_jax.runs.frozen import tree_hash

    assert pipe.weights == tree_hash(jax.tree.map(np.asarray, pipe.variables.params))


@pytest.fixture(scope="module")
def captioner():
    """Untrained, but with an opinion."""
    from t2i_jax import config as configs
    from t2i_jax.core import family as families
    from t2i_jax.text import tokenizer as tokenizers
    from tests.conftest import ROOT

    config = configs.load(
        f"{ROOT}/configs/shapes_captioner.py:smoke", ["text.vocab_size=300", "text.length=6"]
    )
    family, rng = load_family(config), np.random.default_rng(0)
    params, extra = jax.jit(lambda: family.init(jax.random.key(0), {}))()
    params["model"]["net"]["head"] = jax.random.normal(jax.random.key(1), (300, 32))
    frozen = {"first_stage": {"codebook": rng.uniform(-1, 1, (64, 48)).astype(np.float32)}}
    tokenizer = tokenizers.train(["a small red circle", "two large blue stars"] * 9, 300)
    variables = families.Variables(params, extra, frozen)
    return pipeline.Pipeline(config, family, variables, tokenizer)


def noise(count, height=32, width=32):
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def test_a_picture_is_the_same_however_it_is_given(captioner, tmp_path):
    array = noise(1, 50, 40)[0]
    path = tmp_path / "x.png"
    Image.fromarray(array).save(path)
    (expected,) = captioner.caption(path)
    assert expected
    for given in (
        str(path),
        Image.open(path),
        array,
        [array],
        array[None],
        Image.fromarray(array).convert("RGBA"),
    ):
        assert captioner.caption(given) == [expected]
    np.testing.assert_array_equal(read_picture(array[:40], 40), array[:40])
    np.testing.assert_array_equal(
        read_picture(path, 40), array[5:45]
    )  # the largest square, from the middle
    np.testing.assert_array_equal(
        read_picture(array[:, :, :1], 40), array[5:45, :, :1].repeat(3, 2)
    )


def test_captions_of_many_pictures(captioner):
    pictures = noise(5)
    alone = [captioner.caption(picture)[0] for picture in pictures]
    assert len(set(alone)) > 1
    assert captioner.caption(pictures, batch=2) == captioner.caption(list(pictures)) == alone
    assert captioner.caption(pictures[:2], num=2) == [alone[0], alone[0], alone[1], alone[1]]
    drawn = captioner.caption(pictures[:1], num=4, temperature=1.0)
    assert drawn == captioner.caption(pictures[:1], num=4, temperature=1.0) and len(set(drawn)) > 1
    assert drawn != captioner.caption(pictures[:1], num=4, temperature=1.0, seed=1)
    before = pipeline.run_ability._cache_size()
    captioner.caption(pictures[1:], temperature=0.5, top_p=0.5, length_penalty=2.0, seed=3)
    assert pipeline.run_ability._cache_size() == before


def test_bad_requests_for_captions(captioner, pipe, tmp_path):
    with pytest.raises(ValueError, match="this model cannot 'sample'; it can caption"):
        captioner("a red circle", guidance=2.0)
    abilities = "decode, encode, explain, inpaint, reconstruct, sample"
    with pytest.raises(ValueError, match=f"this model cannot 'caption'; it can {abilities}"):
        pipe.caption(noise(1))
    with pytest.raises(ValueError, match=r"no setting 'beam'.*did you mean 'beams'"):
        captioner.caption(noise(1), beam=2)
    with pytest.raises(ValueError, match="beams is 0: it must be from 1 to 256"):
        captioner.caption(noise(1), beams=0)
    with pytest.raises(
        ValueError, match=r"beams is 2 and temperature 0\.5: .*; let temperature be 0, or beams 1"
    ):
        captioner.caption(noise(1), beams=2, temperature=0.5)
    with pytest.raises(ValueError, match="nothing to caption"):
        captioner.caption([])
    with pytest.raises(FileNotFoundError, match=r"no picture .*y\.png"):
        captioner.caption([tmp_path / "y.png"])
    (tmp_path / "z.png").write_text("words")
    with pytest.raises(ValueError, match=r"z\.png: not a readable picture"):
        captioner.caption(tmp_path / "z.png")
    with pytest.raises(ValueError, match="needs to be uint8"):
        captioner.caption([np.zeros((4, 4, 3), np.float32)])
