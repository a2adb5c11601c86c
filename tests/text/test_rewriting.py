"""How near words are to those of a grammar, against the whole text at once; limits of length."""

import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.text import completion, rewriting
from t2i_jax.text.expansion import Answer, expand
from tests.text.test_completion import TRUNK, make_tokenizer, random_model

TEMPLATES = ((("", ("a",)), ("colour", ("red", "blue")), ("shape", ("ring", "star"))),)
CHOICES = [("colour", "red"), ("colour", "blue"), ("shape", "ring"), ("shape", "star")]
PLACES = 384


@pytest.fixture(scope="module")
def both():
    """A model in which a word after another begins with a token of its own, and its parameters."""
    return random_model(make_tokenizer([("\u0120", letter) for letter in string.ascii_lowercase]))


@pytest.fixture(autouse=True)
def room(monkeypatch):
    """A token of this model is a letter, so a line needs more of them."""
    monkeypatch.setattr(rewriting, "WORD_ROOM", 96)


@jax.jit
def whole_text(params, tokens):
    embedding = params["text"]["embed"]["embedding"]
    x, _ = TRUNK.apply(
        {"params": params["trunk"]},
        embedding[tokens][None],
        jnp.tri(PLACES, dtype=bool)[None, None],
    )
    return jax.nn.log_softmax(x[0] @ embedding.T)


def test_scores_are_those_of_both_directions_without_what_neutral_words_have(both):
    model, params = both
    params = jax.tree.map(jnp.asarray, params)

    def first(word):
        return model.tokenizer.encode(f" {word}").ids[0]

    def log_prob(line, blank, kind, word, choice):
        """Of what stands at the end of a line, after the lines of SHOWN."""
        each = [line.format(kind=k, word=w, choice=c) for k, w, c in rewriting.SHOWN]
        head = line.removesuffix(f" {{{blank}}}").format(kind=kind, word=word, choice=choice)
        ids = model.tokenizer.encode("\n".join([*each, head])).ids
        tokens = np.zeros(PLACES, np.int32)
        tokens[: len(ids)] = ids
        wanted = first({"word": word, "choice": choice}[blank])
        return float(whole_text(params, tokens)[len(ids) - 1, wanted])

    def raw(word):
        return np.array(
            [
                np.mean([log_prob(x, "choice", *p[:1], word, p[1]) for x in rewriting.CHOICE_LINES])
                + np.mean([log_prob(x, "word", *p[:1], word, p[1]) for x in rewriting.WORD_LINES])
                for p in CHOICES
            ]
        )

    neutral = np.mean([raw(word) for word in rewriting.NEUTRAL], axis=0)
    score = rewriting.word_scorer(model, TEMPLATES)
    words = ["crimson", "hoop"]
    found = score(words)
    for word, own in zip(words, found, strict=True):
        assert list(own) == CHOICES
        expected = raw(word) - neutral
        expected -= np.log(np.exp(expected).sum())
        np.testing.assert_allclose(list(own.values()), expected, atol=2e-3)
    assert np.ptp(list(found[0].values())) > 0.1
    assert score(["crimson"]) == found[:1]


def test_a_caption_of_the_grammar_stays_and_a_prompt_without_room_too(both):
    rewrite = rewriting.make_rewriter(both[0], TEMPLATES, ())
    long = "一个红色的圆环" * 20  # one word of 420 bytes
    for prompt, why in (
        (f"a {long} ring", "a text of"),
        ("red", "too few words"),
        ("the blue star!", ""),
    ):
        (found,) = expand([prompt], lambda text: Answer(rewrite(text), "tiny"), "tiny", 0)
        assert found.prompt == (prompt if why else "a blue star")
        assert why in found.error and bool(why) == bool(found.error)


def test_examples_that_leave_no_room_are_not_shown(both):
    model, examples = both[0], ["a cat", "long " * 200, "a dog"]
    text = rewriting.beginning(model, examples)
    assert text == f"{rewriting.STYLE}\n\nCaption: a cat\nCaption: a dog\n"
    rewrite = rewriting.make_rewriter(model, (), examples)
    begun = completion.start(model, text, rewriting.ROOM)
    line = "\nText: a fox\nCaption:"
    assert rewrite("a fox") == completion.complete(model, begun, line, rewriting.CAPTION_TOKENS)


def test_what_an_endpoint_is_told():
    told = rewriting.instruction(TEMPLATES, ["a cat"])
    assert told.endswith("a (red|blue) (ring|star)") and "a cat" not in told
    assert rewriting.instruction((), ["a cat", "a dog"]).endswith("\n\n- a cat\n- a dog")
