"""Captions with a grammar: which texts fit it, and the caption that means the same as another text.

A grammar is a list of templates, and a template a list of slots (kind, choices): what a word of the
caption says, such as "colour", and the words that it can be. The kind of a word that says nothing
is "". A source of data names its grammar TEMPLATES (core/source.py).
"""

import re
from collections.abc import Callable, Mapping, Sequence

from t2i_jax.core.source import Templates

# Words of English that name nothing: they are left out before words are compared.
ARTICLES = ("a", "an", "the", "this", "that", "some", "it", "its", "which", "there")
PREPOSITIONS = ("of", "to", "in", "on", "at", "with", "by", "from", "as")
EMPTY_WORDS = frozenset((*ARTICLES, *PREPOSITIONS, "is", "are", "be"))
SKIP = 4.0  # what it costs to leave a word of the text out, in nats
NEVER = -1e9  # the score of what cannot be

# The log-probability of each (kind, choice), given a word of the text.
Scores = Mapping[tuple[str, str], float]


def fits(templates: Templates, text: str) -> bool:
    """Return whether a text is a caption of the grammar."""
    return any(re.fullmatch(pattern, text) for pattern in map(_pattern, templates))


def describe(templates: Templates) -> str:
    """Return the grammar, one template a line: "a (small|large) (red|green) circle"."""

    def slot(choices):
        return choices[0] if len(choices) == 1 else f"({'|'.join(choices)})"

    return "\n".join(" ".join(slot(choices) for _, choices in each) for each in templates)


def choices_of(templates: Templates) -> list[tuple[str, str]]:
    """Return each (kind, choice) of the grammar once, without the choices that name nothing."""
    every = [(kind, choice) for each in templates for kind, choices in each for choice in choices]
    return [pair for pair in dict.fromkeys(every) if content(pair[1])]


def content(text: str) -> list[str]:
    """Return the words of a text that name something, in small letters."""
    words = re.findall(r"\w+", text.lower())
    return [word for word in words if word not in EMPTY_WORDS]


def exact(templates: Templates, word: str) -> list[tuple[str, str]]:
    """Return the choices of the grammar that are this word."""
    return [(kind, choice) for kind, choice in choices_of(templates) if content(choice) == [word]]


def normalise(
    templates: Templates, text: str, score: Callable[[Sequence[str]], Sequence[Scores]]
) -> str | None:
    """Return the caption whose words fit those of a text best, or None if no template does.

    The words of the text are put into the slots of each template in their order, each into one or
    into none. The caption is that of the largest sum of scores.

    score: words -> the scores of each. It is not asked about the words of the grammar.
    """
    words = content(text)
    known = {word: dict.fromkeys(exact(templates, word), 0.0) for word in words}
    new = [word for word in known if not known[word]]
    known |= dict(zip(new, score(new), strict=True)) if new else {}
    scores = [known[word] for word in words]
    best = max((_best(template, scores) for template in templates), key=lambda found: found[0])
    return best[1] if best[0] > NEVER / 2 else None


def _best(template, scores: Sequence[Scores]) -> tuple[float, str]:
    """Return (the largest sum of scores, its caption) of a template, by dynamic programming."""
    slots = [(kind, choices) for kind, choices in template if any(map(content, choices))]
    # totals[i]: the best of the first i words of the text, in the slots so far.
    totals = [(-SKIP * i, ()) for i in range(len(scores) + 1)]
    for kind, choices in slots:
        new: list[tuple[float, tuple[str, ...]]] = [(NEVER, ())]
        for i, own in enumerate(scores):
            value, choice = max((own.get((kind, each), NEVER), each) for each in choices)
            put = (totals[i][0] + value, (*totals[i][1], choice))
            skipped = (new[i][0] - SKIP, new[i][1])
            new.append(max(put, skipped, key=lambda found: found[0]))
        totals = new
    value, chosen = totals[-1]
    filled = iter(chosen)
    words = [
        next(filled, "") if any(map(content, choices)) else choices[0] for _, choices in template
    ]
    return value, " ".join(words)


def _pattern(template) -> str:
    return " ".join(f"({'|'.join(map(re.escape, choices))})" for _, choices in template)
