"""What a language model is told about prompts, and how a small local one rewrites them."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from t2i_jax.core.source import Templates
from t2i_jax.text import grammar
from t2i_jax.text.completion import (
    MOST_TOKENS,
    LanguageModel,
    Start,
    complete,
    next_log_probs,
    start,
)

CAPTION_TOKENS = 64  # at most, of a caption that is written
ROOM = 512  # tokens of a prompt and its caption
WORD_ROOM = 32  # tokens of a line about a word
# Lines that say which choice of a kind a word is, and lines that say which word names a choice.
CHOICE_LINES = (
    "Another word for the {kind} {word} is {choice}",
    "{word} ({kind}) is {choice}",
)
WORD_LINES = ("{kind}: {choice} = {word}", "{choice} means the same as {word}")
SHOWN = (  # (kind, word, choice) of the lines before: of nothing that a grammar here is about
    ("animal", "feline", "cat"),
    ("speed", "rapid", "fast"),
    ("vehicle", "automobile", "car"),
    ("feeling", "sorrowful", "sad"),
    ("person", "physician", "doctor"),
)
WORDS_AT_ONCE = 6  # about which the model is asked at once
NEUTRAL = ("thing", "something", "word")  # what they would say of any word is subtracted

# What a language model without a grammar is told.
STYLE = (
    "You write captions for a model that draws pictures. Rewrite the text as one caption: keep "
    "everything that it says, and add detail in the style of these captions. Answer with the "
    "caption alone."
)
MEANING = (
    "You rewrite texts for a model that draws pictures and knows few words. Rewrite the text as "
    "one caption of the grammar below, with the same meaning: replace each word that the grammar "
    "does not have by the one of its words that is nearest. Answer with the caption alone."
)


def instruction(templates: Templates, examples: Sequence[str]) -> str:
    """Return what a language model is told before it gets a prompt."""
    if templates:
        return (
            f"{MEANING}\n\nThe grammar, one kind of caption a line:\n{grammar.describe(templates)}"
        )
    return "\n".join([f"{STYLE}\n", *(f"- {caption}" for caption in examples)])


def make_rewriter(
    model: LanguageModel, templates: Templates, examples: Sequence[str]
) -> Callable[[str], str]:
    """Return the function that rewrites a prompt with a small local model.

    With a grammar, the model only says how near words are, and `grammar.normalise` builds the
    caption: a small model's own answers are seldom captions of the grammar. Without one, it writes
    the line after the examples.
    The function raises ValueError for a prompt from which no caption can be made.
    """
    if templates:
        score = word_scorer(model, templates)

        def normal(prompt: str) -> str:
            if (found := grammar.normalise(templates, prompt, score)) is None:
                raise ValueError("it has too few words for a caption of the grammar")
            return found

        return normal
    begun = start(model, beginning(model, examples), room=ROOM)
    return lambda prompt: complete(model, begun, f"\nText: {prompt}\nCaption:", CAPTION_TOKENS)


def beginning(model: LanguageModel, examples: Sequence[str]) -> str:
    """Return what a prompt comes after: STYLE, and those examples that leave room for a prompt."""
    text = f"{STYLE}\n"
    for caption in examples:
        longer = f"{text}\nCaption: {caption}"
        tokens = model.tokenizer.encode(f"{longer}\n", add_special_tokens=False).ids
        if len(tokens) <= MOST_TOKENS - ROOM:
            text = longer
    return f"{text}\n"


def word_scorer(
    model: LanguageModel, templates: Templates
) -> Callable[[Sequence[str]], list[grammar.Scores]]:
    """Return the function that gives the log-probability of each choice, given each of some words.

    Two estimates are added, each a mean over lines: how likely the choice is after the word, and
    how likely the word is after the choice (a noisy channel, arXiv 2108.04106). From each, what it
    is with words that say nothing is subtracted (contextual calibration, arXiv 2102.09690). Of
    words and choices, only the first token counts.
    """
    choices = [(kind, choice) for kind, choice in grammar.choices_of(templates) if kind]
    kinds = list(dict.fromkeys(kind for kind, _ in choices))
    row_of = np.array([kinds.index(kind) for kind, _ in choices])
    token_of = np.array([first_token(model, choice) for _, choice in choices])
    to_choice = [(begin(model, line), line.removesuffix(" {choice}")) for line in CHOICE_LINES]
    named = [
        log_probs_after(model, begin(model, line), line.removesuffix(" {word}"), choices)
        for line in WORD_LINES
    ]
    to_word = sum(named[1:], start=named[0]) / len(named)  # [choices, vocabulary]

    def raw(words: Sequence[str]) -> Float[np.ndarray, "words choices"]:
        """Return the sum of both estimates, without the subtraction."""
        given = [(kind, word) for word in words for kind in kinds]
        after = [log_probs_after(model, begun, head, given) for begun, head in to_choice]
        after = np.mean(after, axis=0).reshape(len(words), len(kinds), -1)
        return after[:, row_of, token_of] + to_word[:, [first_token(model, w) for w in words]].T

    neutral, known = raw(NEUTRAL).mean(0), {}

    def score(words: Sequence[str]) -> list[grammar.Scores]:
        new = [word for word in dict.fromkeys(words) if word not in known]
        for first in range(0, len(new), WORDS_AT_ONCE):
            some = new[first : first + WORDS_AT_ONCE]
            values = raw(some) - neutral
            values -= np.logaddexp.reduce(values, axis=1, keepdims=True)
            for word, row in zip(some, values, strict=True):
                known[word] = dict(zip(choices, row.tolist(), strict=True))
        return [known[word] for word in words]

    return score


def begin(model: LanguageModel, line: str) -> Start:
    """Return the lines of SHOWN, as the start of further ones."""
    shown = [line.format(kind=kind, word=word, choice=choice) for kind, word, choice in SHOWN]
    return start(model, "\n".join(shown) + "\n", room=WORD_ROOM)


def log_probs_after(
    model: LanguageModel, begun: Start, head: str, given: Sequence[tuple[str, str]]
) -> Float[np.ndarray, "N V"]:
    """Return the log-probabilities of the token after a line's head, for each of N (kind, word)."""
    texts = [head.format(kind=kind, word=word, choice=word) for kind, word in given]
    return next_log_probs(model, begun, texts)


def first_token(model: LanguageModel, word: str) -> int:
    """Return the first token of a word that follows another."""
    return model.tokenizer.encode(f" {word}", add_special_tokens=False).ids[0]
