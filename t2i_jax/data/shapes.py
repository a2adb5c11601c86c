"""`shapes`: pictures of a few coloured shapes, with captions that say exactly what is in them.

Small enough to learn on a CPU, and scored exactly (`t2i_jax/metrics/alignment.py`). A scene is a pure function of its
split and index. Four kinds, a quarter each:

    one       "a small red circle"
    relation  "a large blue star above a small white ring"        (above, below, left of, right of)
    count     "three small green squares"                         (two to four)
    two       "a small red cross and a large cyan circle"

Attributes are uniform over the allowed combinations; the two things of a pair are never described alike. Train,
validation and test have the same distribution and share no scene. The pairs of HELD_OUT occur only in `compositional`,
where every scene has one. `paraphrase` says the same kind of scenes in words that no other split uses (SYNONYMS).
"""

import re
import zlib
from typing import NamedTuple

import numpy as np

from t2i_jax.data import source
from t2i_jax.data.render import COLOURS, SHAPES, SIZES, UNITS

SPLITS = {"train": 50_000, "validation": 2_000, "test": 2_000, "compositional": 2_000, "paraphrase": 2_000}
KINDS = ("one", "relation", "count", "two")
RELATIONS = {"above": (1, -1), "below": (1, 1), "left of": (0, -1), "right of": (0, 1)}  # axis; sign of first - second
NUMBERS = {"two": 2, "three": 3, "four": 4}
MIRRORED = {"left": "right", "right": "left", "west": "east", "east": "west"}
HELD_OUT = {
    ("red", "star"),
    ("green", "ring"),
    ("blue", "triangle"),
    ("yellow", "cross"),
    ("purple", "circle"),
    ("orange", "square"),
}
SYNONYMS = {
    "small": ("tiny", "little"),
    "large": ("big", "huge"),
    "red": ("crimson", "scarlet"),
    "green": ("emerald", "jade"),
    "blue": ("cobalt", "sapphire"),
    "yellow": ("golden", "lemon"),
    "purple": ("violet", "lilac"),
    "orange": ("amber", "tangerine"),
    "cyan": ("turquoise", "aqua"),
    "white": ("ivory", "snowy"),
    "circle": ("disc", "dot"),
    "square": ("box", "block"),
    "triangle": ("pyramid", "wedge"),
    "star": ("pentagram", "pentacle"),
    "cross": ("plus sign", "plus"),
    "ring": ("hoop", "doughnut"),
    "above": ("over", "on top of"),
    "below": ("under", "beneath"),
    "left of": ("to the west of", "west of"),
    "right of": ("to the east of", "east of"),
    "two": ("a pair of", "a couple of"),
    "three": ("a trio of", "a triplet of"),
    "four": ("a quartet of", "a foursome of"),
}

SEED = 20  # with the split and the index, all that a scene depends on
GAP = UNITS * 2 // 32  # between two bounding boxes: 2 px at 32 px
APART, ALIGNED = 0.3 * UNITS, 0.15 * UNITS  # of the centres of a relation: at least along its axis, less than across it
OWNERS = ("validation", "test", "paraphrase")  # each owns one of PARTS parts of all scenes, train the rest
PARTS = 8
PAIRS = {n: np.triu_indices(n, 1) for n in range(1, 5)}


class Thing(NamedTuple):
    """One shape; x and y are the centre of its bounding box in 1/UNITS of the canvas, from the top left corner."""

    size: str
    colour: str
    shape: str
    x: int
    y: int


class Scene(NamedTuple):
    """`things` in the order of the caption; `relation` is that of the first to the second, "" where none is said."""

    kind: str
    things: tuple[Thing, ...]
    relation: str
    caption: str


ALL = [(size, colour, shape) for size in SIZES for colour in COLOURS for shape in SHAPES]
TRAINED = [words for words in ALL if words[1:] not in HELD_OUT]


def scene(split: str, index: int) -> Scene:
    """The scene at `index` of a split: a pure function, for any index >= 0. The kinds take turns."""
    rng = np.random.default_rng((SEED, list(SPLITS).index(split), index))
    kind = KINDS[index % 4]
    words = _describe(rng, kind, split == "compositional")
    relation = list(RELATIONS)[rng.integers(4)] if kind == "relation" else ""
    for centres in _layouts(rng, words, relation):
        things = tuple(Thing(*w, x, y) for w, (x, y) in zip(words, centres, strict=True))
        if split == "compositional" or _owner(things) == split:
            break
    said = caption(kind, things, relation)
    return Scene(kind, things, relation, paraphrase(said, rng) if split == "paraphrase" else said)


def caption(kind: str, things, relation: str = "") -> str:
    """What a caption of the training grammar says of things (size, colour, shape, ...)."""
    said = ["a " + " ".join(thing[:3]) for thing in things]
    if kind == "count":
        number = next(word for word, n in NUMBERS.items() if n == len(things))
        return f"{number} {plural(said[0][2:])}"
    return {"one": "", "two": " and ", "relation": f" {relation} "}[kind].join(said)


def paraphrase(said: str, rng: np.random.Generator) -> str:
    """The same in other words: every word of content is replaced by one of its SYNONYMS, and "a" by "the"."""

    def other(match):
        word, more = match.group(1), match.group(2)
        new = SYNONYMS[word][rng.integers(len(SYNONYMS[word]))]
        return plural(new) if more else new

    return re.sub(_any_of(SYNONYMS), other, re.sub(r"\ba\b", "the", said))


def plain(said: str) -> str:
    """Undoes `paraphrase`: the caption in the words of the training grammar; what has no synonym stays as it is."""
    words = {other: word for word, others in SYNONYMS.items() for other in others}

    def back(match):
        word, more = words[match.group(1)], match.group(2)
        return plural(word) if more else word

    said = re.sub(r"\bto the (left|right) of\b", r"\1 of", said)  # also understood, though `paraphrase` does not say it
    return re.sub(r"\bthe\b", "a", re.sub(_any_of(words), back, said))


def mirrored(said: str) -> str:
    """The caption of the picture mirrored left to right: every shape is its own mirror image, so only sides change."""
    return re.sub(rf"\b({'|'.join(MIRRORED)})\b", lambda match: MIRRORED[match.group()], said)


def plural(word: str) -> str:
    """cross -> crosses, star -> stars."""
    return word + ("es" if word.endswith(("s", "x")) else "s")


def make(config, split: str) -> source.Source:
    """The `shapes` source at `config.resolution`; `config.scenes` other than 0 is the number of scenes of every split.

    Prepares all splits on first use. Raises ValueError if there is no such split.
    """
    from t2i_jax.data import shapes_builder  # here, so that scenes and captions need no TensorFlow

    if split not in SPLITS:
        raise ValueError(f"shapes has no split {split!r}: it has {', '.join(SPLITS)}")
    return shapes_builder.load(int(config.resolution), int(getattr(config, "scenes", 0)), split)


def _describe(rng, kind, held_out):
    """(size, colour, shape) of each thing, uniform over what the kind allows; with a HELD_OUT pair if asked for."""
    among = ALL if held_out else TRAINED
    while True:
        words = [among[i] for i in rng.choice(len(among), 1 if kind in ("one", "count") else 2, replace=False)]
        if kind == "count":
            words = [("small", *words[0][1:])] * int(rng.integers(2, 5))
        if not held_out or any(w[1:] in HELD_OUT for w in words):
            return words


def _layouts(rng, words, relation):
    """Without end: centres [n, 2] (x, y) for things of these sizes, inside, apart and related, by rejection."""
    n, draws = len(words), 64
    side = np.array([SIZES[w[0]] * UNITS for w in words])
    low = np.ceil(side / 2)[:, None]
    i, j = PAIRS[n]
    while True:
        at = np.floor(low + rng.random((draws, n, 2)) * (UNITS - 2 * low + 1))
        away = at[:, i] - at[:, j]
        good = (abs(away).max(2) >= (side[i] + side[j]) / 2 + GAP).all(1)
        if relation:
            axis, sign = RELATIONS[relation]
            good &= (sign * away[:, 0, axis] >= APART) & (abs(away[:, 0, 1 - axis]) < ALIGNED)
        for layout in at[good]:
            yield layout.astype(int).tolist()


def _owner(things):
    """The split that may hold a picture of these things, in whatever order they are named: no two splits share one."""
    part = zlib.crc32(repr(sorted(map(tuple, things))).encode()) % PARTS
    return OWNERS[part] if part < len(OWNERS) else "train"


def _any_of(words):
    """A pattern for any of the words, the longest first: group 1 the word, group 2 the ending of its plural."""
    return r"\b(" + "|".join(sorted(words, key=len, reverse=True)) + r")(s|es)?\b"
