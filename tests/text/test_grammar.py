"""Grammars of captions, on that of `shapes`."""

import math

import pytest

from t2i_jax.data import shapes
from t2i_jax.text import grammar

TEMPLATES = shapes.TEMPLATES


@pytest.mark.parametrize("split", ["train", "compositional"])
def test_every_caption_fits_and_is_its_own_normal_form(split):
    def ask(word):
        raise AssertionError(word)

    for index in range(64):
        caption = shapes.scene(split, index).caption
        assert grammar.fits(TEMPLATES, caption)
        assert grammar.normalise(TEMPLATES, caption, ask) == caption


@pytest.mark.parametrize(
    "text",
    ["", "a red circle", "a small red circle and", "two small red circle", "a small red dog"],
)
def test_what_does_not_fit(text):
    assert not grammar.fits(TEMPLATES, text)


def test_the_grammar_in_words():
    lines = grammar.describe(TEMPLATES).splitlines()
    assert len(lines) == 4 and lines[0].startswith("a (small|large) (red|green|")
    assert ") and a (small|large)" in lines[3]


def test_choices_are_listed_once():
    choices = grammar.choices_of(TEMPLATES)
    assert len(choices) == len(set(choices)) == 2 + 8 + 6 + 4 + 3 + 6 + 1  # the last is "and"
    assert grammar.exact(TEMPLATES, "left") == [("position", "left of")]
    assert grammar.exact(TEMPLATES, "leftish") == []


def scores_of(words):
    """Return a scorer that knows these words: {word: (kind, choice)}."""
    every = grammar.choices_of(TEMPLATES)

    def score(asked):
        rows = []
        for word in asked:
            meant = words.get(word)
            other = math.log(0.1 / 29)
            rows.append({pair: math.log(0.9) if pair == meant else other for pair in every})
        return rows

    return score


def test_words_are_put_into_the_slots_of_the_best_template():
    """Words that name nothing are left out, and so is one too many."""
    known = {
        "weeish": ("size", "small"),
        "reddish": ("colour", "red"),
        "roundel": ("shape", "circle"),
        "roundels": ("shape", "circles"),
        "trey": ("number", "three"),
        "over": ("position", "above"),
    }
    normal = {
        "The weeish, reddish ROUNDEL!": "a small red circle",
        "trey of the weeish reddish roundels": "three small red circles",
        "a weeish reddish star is over the large blue roundel": "a small red star above a large "
        "blue circle",
        "a very weeish reddish star and a large blue ring": "a small red star and a large blue "
        "ring",
        "a weeish green ring to the left of a large blue roundel": "a small green ring left of a "
        "large blue circle",
    }
    for text, caption in normal.items():
        assert grammar.normalise(TEMPLATES, text, scores_of(known)) == caption


def test_held_out_pairs_can_be_asked_for():
    assert ("red", "star") in shapes.HELD_OUT_PAIRS
    assert grammar.normalise(TEMPLATES, "small red star", scores_of({})) == "a small red star"


@pytest.mark.parametrize("text", ["", "the of", "red", "a small star"])
def test_texts_with_too_few_words_have_no_normal_form(text):
    assert grammar.normalise(TEMPLATES, text, scores_of({})) is None


def test_the_template_is_the_most_probable_one():
    """Four words are a count. Or the first is left out, and the rest are one object."""
    best = grammar.normalise(
        TEMPLATES, "w small red x", scores_of({"w": ("number", "two"), "x": ("shape", "stars")})
    )
    assert best == "two small red stars"
