"""A run that captions says how well pictures fit their captions."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from t2i_jax import config as configs
from t2i_jax import ranker
from t2i_jax.families import captioner
from t2i_jax.families import family as families
from t2i_jax.families.family import Context, Variables
from tests.conftest import ROOT


def test_the_score_is_the_log_probability_of_the_caption(tiny_batch, smoke):
    config = smoke("shapes_captioner")
    family = families.load(config)
    batch, frozen = tiny_batch(config)
    frozen["first_stage"] = {"codebook": jax.random.normal(jax.random.key(3), (config.image_tokenizer.codes, 48))}
    params, extra = jax.jit(family.init)(jax.random.key(0), batch)
    head = params["model"]["net"]["head"]
    params["model"]["net"]["head"] = jax.random.normal(jax.random.key(2), head.shape)
    text, keys = batch["text"]["transformer"], jax.random.split(jax.random.key(1), len(batch["image"]))
    mean = jax.jit(lambda p: family.losses["model"](p, Context(extra, frozen, None, 0, batch, keys, train=False))[0])(params)
    score = captioner.make_score(config)(Variables(params, extra, frozen), batch["image"], text)
    np.testing.assert_allclose(score, -mean * text["mask"].sum(1), rtol=1e-5)
    assert np.std(score) > 0.1


@pytest.fixture
def folder(tmp_path):
    """folder(config, tokenizer) is the folder of a run of that config, as far as it is read here."""

    def make(config, tokenizer="{}"):
        (tmp_path / "run.json").write_text(json.dumps({"config": config.to_dict()}))
        (tmp_path / "tokenizer.json").write_text(tokenizer)
        return str(tmp_path)

    return make


def asking(folder):
    return configs.load(f"{ROOT}/configs/shapes.py:smoke", (f"ranker={folder}",))


def test_runs_that_cannot_rank(folder, smoke):
    with pytest.raises(ValueError, match="is a run of family 'flow'; it must be of captioner"):
        families.load(asking(folder(smoke("shapes_flow"))))
    with pytest.raises(ValueError, match="sees 64 px, and this model draws 32"):
        families.load(asking(folder(smoke("shapes_captioner", "data.resolution=64"))))
    with pytest.raises(FileNotFoundError):
        families.load(asking("nowhere"))


def test_a_ranker_reads_the_same_tokens(folder, smoke, monkeypatch):
    monkeypatch.setattr(ranker.tokenizers, "load", lambda path: SimpleNamespace(to_str=lambda: path.read_text()))
    mine = SimpleNamespace(to_str=lambda: "mine")
    with pytest.raises(ValueError, match="reads other tokens than this model"):
        ranker.add_weights({}, asking(folder(smoke("shapes_captioner"), "others")), mine)


def test_without_a_ranker_nothing_is_added(smoke):
    frozen = {"first_stage": 1}
    assert ranker.add_weights(frozen, smoke("shapes"), None) is frozen and ranker.make(smoke("shapes")) is None


def test_of_candidates_that_of_which_most_is_said_is_kept(smoke, monkeypatch):
    """Each row by itself; the first candidate is what would be drawn alone."""

    def sample(variables, inputs, keys, scale):
        return (scale * jax.vmap(lambda key: jax.random.uniform(key, (2, 2, 3)))(keys)).astype(np.uint8)

    config = smoke("shapes_flow")
    alone = ranker.ranked(sample, config)
    monkeypatch.setattr(ranker, "make", lambda config: lambda frozen, image, text: frozen["sign"] * image.mean((1, 2, 3)))
    ability, keys = ranker.ranked(sample, config), jax.random.split(jax.random.key(0), 32)

    def draw(keys, sign, ability=ability, **settings):
        inputs = {"text": {"transformer": None}}
        return np.asarray(ability(Variables({}, {}, {"sign": sign}), inputs, keys, scale=200, **settings))

    each = np.stack([draw(k, 1) for k in (keys, *(families.fold_in_each(keys, i) for i in (1, 2)))])
    of = each.mean((2, 3, 4))
    assert set(of.argmax(0)) == {0, 1, 2}
    for sign, chosen in ((1, of.argmax(0)), (-1, of.argmin(0))):
        np.testing.assert_array_equal(draw(keys, sign, candidates=3), each[chosen, np.arange(32)])
    np.testing.assert_array_equal(draw(keys, 1, alone), each[0])
    with pytest.raises(ValueError, match=r"nothing ranks 2 candidates: .* in config\.ranker"):
        draw(keys, 1, alone, candidates=2)
    with pytest.raises(ValueError, match="candidates is 0: at least 1"):
        draw(keys, 1, candidates=0)


def test_candidates_without_a_ranker_are_refused_when_the_model_is_made(smoke):
    with pytest.raises(ValueError, match="nothing ranks 4 candidates"):
        families.load(smoke("shapes_masked", "sample.candidates=4"))
