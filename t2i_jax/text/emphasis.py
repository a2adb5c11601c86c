r"""Weights in prompts, in the form of AUTOMATIC1111's web UI, which many programs share.

    (word)      1.1 times the weight
    (word:1.3)  1.3 times; the number may be 0 or negative
    [word]      the weight divided by 1.1
    \( \) \[ \] \\   the character itself

Brackets can stand within brackets, and then their weights are multiplied. One that is never closed
reaches to the end; one that was never opened is text.
"""

import re

MORE, LESS = 1.1, 1 / 1.1
OPENING = {")": "(", "]": "["}
PIECES = re.compile(
    r"\\(?P<literal>[\\()\[\]])"
    r"|(?P<open>[(\[])"
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"
    r"|(?P<close>[)\]])"
    r"|[^\\()\[\]:]+|.",
    re.DOTALL,
)


def parse(prompt: str) -> list[tuple[str, float]]:
    """Return the parts of a prompt and their weights, neighbours of one weight joined.

    A prompt without text has one empty part.
    """
    parts: list[tuple[str, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # the number of parts before each

    def multiply(first: int, weight: float) -> None:
        parts[first:] = [(text, before * weight) for text, before in parts[first:]]

    for piece in PIECES.finditer(prompt):
        kind, text = piece.lastgroup, piece.group()
        if kind == "open":
            opened[text].append(len(parts))
        elif kind == "weight" and opened["("]:
            multiply(opened["("].pop(), float(piece["weight"]))
        elif kind == "close" and opened[OPENING[text]]:
            multiply(opened[OPENING[text]].pop(), MORE if text == ")" else LESS)
        else:
            parts.append((piece["literal"] or text, 1.0))
    for bracket, weight in (("(", MORE), ("[", LESS)):
        for first in opened[bracket]:
            multiply(first, weight)
    joined = [("", 1.0)] if not parts else parts[:1]
    for text, weight in parts[1:]:
        if weight == joined[-1][1]:
            joined[-1] = (joined[-1][0] + text, weight)
        else:
            joined.append((text, weight))
    return joined
