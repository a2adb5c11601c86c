"""Prompts rewritten for a run: by an endpoint that is started here, and by a local model."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import t2i_jax
from t2i_jax import cli
from t2i_jax import config as configs
from t2i_jax.data.provenance import read_metadata
from t2i_jax.runs import rewritten
from tests.conftest import ROOT, write_untrained_run
from tests.text.test_expansion import say, send, serve


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("rewritten") / "run"
    write_untrained_run(configs.load(f"{ROOT}/configs/shapes.py:smoke"), workdir)
    return workdir


@pytest.fixture(scope="module")
def pipe(run):
    return t2i_jax.load(run)


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_an_expanded_prompt_is_drawn_and_told(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    answer = say("A large red circle.")
    with serve(lambda handler, _: send(handler, answer)) as (url, sent):
        drawn = pipe(["a huge crimson disc"], num=2, seed=5, expand=url)
    _, headers, content = sent[0]
    assert len(sent) == 1 and headers["Authorization"] == "Bearer secret"
    assert content["seed"] == 5 and content["messages"][1]["content"] == "a huge crimson disc"
    assert "a (small|large) (red|green|" in content["messages"][0]["content"]
    assert drawn.prompts == ["a large red circle"] * 2
    plain = pipe(["a large red circle"], num=2, seed=5)
    for image, other in zip(drawn.images, plain.images, strict=True):
        np.testing.assert_array_equal(np.asarray(image), np.asarray(other))
    path = drawn.save(tmp_path)[1]
    told = read_metadata(path)
    assert told["prompt"] == "a large red circle"
    assert told["expansion"] == {"prompt": "a huge crimson disc", "model": "tiny", "seed": 5}
    assert "expansion" not in read_metadata(plain.save(tmp_path)[0])
    image, same = pipe.redraw(path)  # no language model is asked
    assert same and len(sent) == 1
    assert json.loads(image.info["t2i_jax"])["expansion"] == told["expansion"]


def test_the_query_of_a_url_is_sent_and_not_kept(pipe):
    with (
        serve(lambda handler, _: send(handler, {}, 500)) as (url, sent),
        pytest.warns(UserWarning, match="drawn as given") as warned,
    ):
        drawn = pipe("a huge crimson disc", expand=f"{url}/v1?key=secret")
    assert sent[0][0].endswith("?key=secret")
    assert "secret" not in str(warned[0].message) + drawn.images[0].info["t2i_jax"]


@pytest.mark.parametrize("text", ["a large crimson circle", "red", "x" * 10_000])
def test_an_answer_outside_the_grammar_is_not_drawn(pipe, text):
    with (
        serve(lambda handler, _: send(handler, say(text))) as (url, _),
        pytest.warns(UserWarning, match="the prompt is drawn as given: http://127"),
    ):
        drawn = pipe("a huge crimson disc", expand=url)
    assert drawn.prompts == ["a huge crimson disc"]
    told = json.loads(drawn.images[0].info["t2i_jax"])["expansion"]
    assert "answer" in told["error"] and told["prompt"] == "a huge crimson disc"


def test_the_command_falls_back_and_says_so(run, tmp_path, capsys):
    with (
        serve(lambda handler, _: send(handler, {}, 500)) as (url, _),
        pytest.warns(UserWarning, match="2 of 2 prompts are drawn as given: .* 500"),
    ):
        cli.main(
            [
                "sample",
                f"--workdir={run}",
                "--prompt=a huge crimson disc",
                "--prompt=",
                "--num=1",
                f"--expand={url}",
                f"--out={tmp_path}",
            ]
        )
    assert "a huge crimson disc" in capsys.readouterr().out
    assert read_metadata(tmp_path / "000.png")["prompt"] == "a huge crimson disc"


@pytest.mark.parametrize("by", ["http://", "ftp://a/v1", "nowhere", "", 3, "http://a:b"])
def test_what_cannot_be_asked_is_refused(pipe, by):
    with pytest.raises(ValueError, match=r"expand is|is no URL"):
        pipe("a red circle", expand=by)
    with pytest.raises(ValueError, match="nothing to draw"):
        pipe([], expand="http://127.0.0.1:1")


def test_the_local_model_has_to_be_fetched(pipe, monkeypatch, tmp_path):
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="--weights=smollm2"):
        pipe("a red circle", expand="local")


def test_the_local_model_begins_once(pipe, monkeypatch):
    """Its lines before a prompt are the same for all prompts of a run."""
    begun = []

    def begin(model, templates, examples):
        begun.append(model.name)
        return lambda prompt: "a large red circle"

    monkeypatch.setattr(rewritten.smollm2, "load", lambda: SimpleNamespace(name="small"))
    monkeypatch.setattr(rewritten, "make_rewriter", begin)
    rewritten._kept.cache_clear()
    try:
        for prompt in ("a huge crimson disc", "a big disc"):
            (found,) = rewritten.rewritten(pipe.config.data, [prompt], "local", 0)
            assert (found.prompt, found.model) == ("a large red circle", "small")
    finally:
        rewritten._kept.cache_clear()
    assert begun == ["small"]


def test_expand_does_not_redraw(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["sample", f"--workdir={run}", f"--from={tmp_path}/x.png", "--expand"])
    assert "--expand is of --prompt" in capsys.readouterr().err


def test_examples_are_captions_of_the_training_set(tmp_path):
    folder = {"name": "folder", "path": str(tmp_path), "resolution": 8}
    config = configs.copy(configs.load(f"{ROOT}/configs/folder.py"))
    config.data.update({**folder})
    assert rewritten.examples_of(config.data) == []  # an empty folder
