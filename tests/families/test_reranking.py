"""A run that captions ranks pictures by how well they fit their captions."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from t2i_jax import config as configs
from t2i_jax.core.family import Context, Variables
from t2i_jax.core.random import derive_keys
from t2i_jax.families import autoregressive, captioner, reranking
from t2i_jax.families.load import load_family
from t2i_jax.runs import other_runs
from t2i_jax.runs.prepare import resolve
from tests.conftest import ROOT
from tests.tiny_stable_diffusion import random_params


def test_the_score_is_the_log_probability_of_the_caption(tiny_batch, smoke):
    config = smoke("shapes_captioner")
    family = load_family(config)
    batch, frozen = tiny_batch(config)
    frozen["first_stage"] = {
        "codebook": jax.random.normal(jax.random.key(3), (config.image_tokenizer.codes, 48))
    }
    params, extra = jax.jit(family.init)(jax.random.key(0), batch)
    head = params["model"]["net"]["head"]
    params["model"]["net"]["head"] = jax.random.normal(jax.random.key(2), head.shape)
    text, keys = (
        batch["text"]["transformer"],
        jax.random.split(jax.random.key(1), len(batch["image"])),
    )
    mean = jax.jit(
        lambda p: family.losses["model"](
            p, Context(extra, frozen, None, 0, batch, keys, train=False)
        )[0]
    )(params)
    score = captioner.make_score(config)(Variables(params, extra, frozen), batch["image"], text)
    np.testing.assert_allclose(score, -mean * text["mask"].sum(1), rtol=1e-5)
    assert np.std(score) > 0.1


@pytest.mark.parametrize("captioning", [0.0, 0.5])
def test_a_run_that_draws_token_by_token_ranks_by_its_own_likelihoods(
    tiny_batch, smoke, captioning
):
    """log p(codes | caption), and log p(caption | codes) if it captions; random weights."""
    config = smoke("shapes", f"captioning={captioning}", "model.depth=1")
    family = load_family(config)
    batch, frozen = tiny_batch(config)
    codebook = jax.random.normal(jax.random.key(3), (config.image_tokenizer.codes, 48))
    frozen["first_stage"] = {"codebook": codebook}
    params, extra = jax.jit(family.init)(jax.random.key(0), batch)
    params = jax.tree.map(jax.numpy.asarray, random_params(params, 4))
    text, keys = batch["text"]["transformer"], jax.random.split(jax.random.key(1), 8)
    ctx = Context(extra, frozen, None, 0, batch, keys, train=False)
    loss, (_, metrics) = jax.jit(lambda p: family.losses["model"](p, ctx))(params)
    of_caption = captioning and metrics["caption_loss"]
    expected = -(loss - captioning * of_caption) * 64 - of_caption * text["mask"].sum(1)
    score = autoregressive.make_score(config)
    found = score(Variables(params, extra, frozen), batch["image"], text)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.std(found) > 0.1


@pytest.fixture
def folder(tmp_path):
    """folder(config, tokenizer) makes what is read here of a run's folder, and returns its path."""

    def make(config, tokenizer="{}"):
        run = {"config": config.to_dict(), "data": "", "tokenizer": "", "frozen": ""}
        (tmp_path / "run.json").write_text(json.dumps(run))
        (tmp_path / "tokenizer.json").write_text(tokenizer)
        return str(tmp_path)

    return make


def config_with_reranker(folder):
    """Return a config that names the run in `folder` as its reranker, as `prepare_run` reads it."""
    overrides = (f"reranker.run={folder}",)
    return resolve(configs.load(f"{ROOT}/configs/shapes.py:smoke", overrides))


def test_runs_that_cannot_rank(folder, smoke):
    with pytest.raises(
        ValueError,
        match="is a run of family 'diffusion'; it must be of autoregressive or captioner",
    ):
        load_family(config_with_reranker(folder(smoke("shapes_diffusion"))))
    with pytest.raises(ValueError, match="takes pictures of 64 px, and this model draws 32 px"):
        load_family(config_with_reranker(folder(smoke("shapes_captioner", "data.resolution=64"))))
    with pytest.raises(FileNotFoundError):
        load_family(config_with_reranker("nowhere"))


def test_a_reranker_reads_the_same_tokens(folder, smoke, monkeypatch):
    monkeypatch.setattr(
        other_runs.tokenizers,
        "load",
        lambda path: SimpleNamespace(to_str=lambda: path.read_text()),
    )
    mine = SimpleNamespace(to_str=lambda: "mine")
    config = config_with_reranker(folder(smoke("shapes_captioner"), "others"))
    with pytest.raises(ValueError, match="reads other tokens than this model"):
        other_runs.with_other_runs({}, config, mine)


def test_without_a_reranker_nothing_is_added(smoke):
    frozen = {"first_stage": 1}
    assert other_runs.with_other_runs(frozen, smoke("shapes"), None) is frozen
    assert reranking.make_reranker(smoke("shapes")) is None


def test_the_candidate_with_the_highest_score_is_kept(smoke, monkeypatch):
    """Each row is ranked on its own; the first candidate is what would be drawn alone."""

    def sample(variables, inputs, keys, scale):
        return (scale * jax.vmap(lambda key: jax.random.uniform(key, (2, 2, 3)))(keys)).astype(
            np.uint8
        )

    config = smoke("shapes_diffusion")
    alone = reranking.with_candidates(sample, config)
    monkeypatch.setattr(
        reranking,
        "make_reranker",
        lambda config: lambda frozen, image, text: frozen["sign"] * image.mean((1, 2, 3)),
    )
    ability = reranking.with_candidates(sample, config)
    keys = jax.random.split(jax.random.key(0), 32)

    def draw(keys, sign, ability=ability, **settings):
        inputs = {"text": {"transformer": None}}
        return np.asarray(
            ability(Variables({}, {}, {"sign": sign}), inputs, keys, scale=200, **settings)
        )

    each = np.stack([draw(k, 1) for k in (keys, *(derive_keys(keys, i) for i in (1, 2)))])
    scores = each.mean((2, 3, 4))
    assert set(scores.argmax(0)) == {0, 1, 2}
    for sign, chosen in ((1, scores.argmax(0)), (-1, scores.argmin(0))):
        np.testing.assert_array_equal(draw(keys, sign, candidates=3), each[chosen, np.arange(32)])
    np.testing.assert_array_equal(draw(keys, 1, alone), each[0])
    with pytest.raises(ValueError, match=r"nothing ranks 2 candidates: .* in config\.reranker"):
        draw(keys, 1, alone, candidates=2)
    with pytest.raises(ValueError, match="candidates is 0: at least 1"):
        draw(keys, 1, candidates=0)


def test_candidates_without_a_reranker_are_refused_when_the_model_is_made(smoke):
    with pytest.raises(ValueError, match="nothing ranks 4 candidates"):
        load_family(smoke("shapes_masked", "sample.candidates=4"))
