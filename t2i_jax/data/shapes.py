"""`shapes`: pictures of a few coloured shapes, with captions that say exactly what is in them.

Small enough to learn on a CPU, and scored exactly (`t2i_jax/metrics/alignment.py`). A scene is a
pure function of its split and index. There are four kinds, a quarter each:

    one       "a small red circle"
    relation  "a large blue star above a small white ring"        (above, below, left of, right of)
    count     "three small green squares"                         (two to four)
    two       "a small red cross and a large cyan circle"

Attributes are uniform over the allowed combinations. The two objects of a pair never have the same
description. Train, validation and test have the same distribution and share no scene. The pairs of
HELD_OUT_PAIRS occur only in `compositional`, where every scene has one. `paraphrase` describes the
same kinds of scenes in words that no other split uses (SYNONYMS).
"""

import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from t2i_jax.core import source
from t2i_jax.core.fields import Field
from t2i_jax.data.render import COLOURS, SHAPES, SIZES, UNITS

LICENCE = "Apache-2.0, as the project, which draws the pictures itself"
SPLITS = {  # number of scenes
    "train": 50_000,
    "validation": 2_000,
    "test": 2_000,
    "compositional": 2_000,
    "paraphrase": 2_000,
}
KINDS = ("one", "relation", "count", "two")
RELATIONS = {  # axis (0: x, 1: y), and the sign of first - second along it
    "above": (1, -1),
    "below": (1, 1),
    "left of": (0, -1),
    "right of": (0, 1),
}
NUMBERS = {"two": 2, "three": 3, "four": 4}
MIRRORED_WORDS = {"left": "right", "right": "left", "west": "east", "east": "west"}
HELD_OUT_PAIRS = {
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

SEED = 20  # a scene depends on this, the split and the index, and on nothing else
# Distances, in 1/UNITS of the canvas.
MIN_GAP = UNITS * 2 // 32  # between two bounding boxes: 2 px at 32 px
MIN_ALONG = 0.3 * UNITS  # of the centres of a relation, along its axis
MAX_ACROSS = 0.15 * UNITS  # of the centres of a relation, across its axis
# All possible scenes are hashed into NUM_PARTS parts. These splits own one each, train the rest.
NUM_PARTS = 8
PART_OWNERS = ("validation", "test", "paraphrase")
LAYOUTS_AT_ONCE = 64
INDEX_PAIRS = {n: np.triu_indices(n, 1) for n in range(1, 5)}  # of n objects


class Object(NamedTuple):
    """A coloured shape.

    x, y: the centre of its bounding box in 1/UNITS of the canvas, from the top left corner.
    """

    size: str
    colour: str
    shape: str
    x: int
    y: int


class Scene(NamedTuple):
    """A picture and its caption.

    objects: in the order of the caption.
    relation: of the first object to the second, "" if the caption states none.
    """

    kind: str
    objects: tuple[Object, ...]
    relation: str
    caption: str


# Descriptions of an object.
ALL_DESCRIPTIONS = [
    (size, colour, shape) for size in SIZES for colour in COLOURS for shape in SHAPES
]
TRAIN_DESCRIPTIONS = [words for words in ALL_DESCRIPTIONS if words[1:] not in HELD_OUT_PAIRS]


def scene(split: str, index: int) -> Scene:
    """Return the scene at `index` of a split: a pure function, for any index >= 0.

    The kinds take turns.
    """
    rng = np.random.default_rng((SEED, list(SPLITS).index(split), index))
    kind = KINDS[index % 4]
    descriptions = _draw_descriptions(rng, kind, split == "compositional")
    relation = list(RELATIONS)[rng.integers(4)] if kind == "relation" else ""
    for centres in _layouts(rng, descriptions, relation):
        objects = tuple(Object(*d, x, y) for d, (x, y) in zip(descriptions, centres, strict=True))
        if split == "compositional" or _owner(objects) == split:
            break
    text = caption(kind, objects, relation)
    return Scene(kind, objects, relation, paraphrase(text, rng) if split == "paraphrase" else text)


def caption(kind: str, objects, relation: str = "") -> str:
    """Return the caption of objects (size, colour, shape, ...) in the training grammar."""
    phrases = ["a " + " ".join(each[:3]) for each in objects]
    if kind == "count":
        number = next(word for word, n in NUMBERS.items() if n == len(objects))
        return f"{number} {plural(phrases[0][2:])}"
    return {"one": "", "two": " and ", "relation": f" {relation} "}[kind].join(phrases)


def paraphrase(text: str, rng: np.random.Generator) -> str:
    """Return a caption in other words.

    One of its SYNONYMS replaces every word of content, and "the" replaces "a".
    """

    def synonym(match):
        word, ending = match.group(1), match.group(2)
        new = SYNONYMS[word][rng.integers(len(SYNONYMS[word]))]
        return plural(new) if ending else new

    return re.sub(_any_of(SYNONYMS), synonym, re.sub(r"\ba\b", "the", text))


def undo_paraphrase(text: str) -> str:
    """Return a caption in the words of the training grammar.

    Words that are no synonym stay as they are.
    """
    words = {other: word for word, others in SYNONYMS.items() for other in others}

    def original(match):
        word, ending = words[match.group(1)], match.group(2)
        return plural(word) if ending else word

    # "to the left of" is understood too, though `paraphrase` does not write it.
    text = re.sub(r"\bto the (left|right) of\b", r"\1 of", text)
    return re.sub(r"\bthe\b", "a", re.sub(_any_of(words), original, text))


def mirrored(text: str) -> str:
    """Return the caption of the picture mirrored left to right.

    Every shape is its own mirror image, so only the sides change.
    """
    pattern = rf"\b({'|'.join(MIRRORED_WORDS)})\b"
    return re.sub(pattern, lambda match: MIRRORED_WORDS[match.group()], text)


def plural(word: str) -> str:
    """Return the plural: cross -> crosses, star -> stars."""
    return word + ("es" if word.endswith(("s", "x")) else "s")


_ADJECTIVES = (("size", tuple(SIZES)), ("colour", tuple(COLOURS)))
_OBJECT = (("", ("a",)), *_ADJECTIVES, ("shape", tuple(SHAPES)))
TEMPLATES: source.Templates = (  # of the kinds of scenes, in the order of KINDS
    _OBJECT,
    (*_OBJECT, ("position", tuple(RELATIONS)), *_OBJECT),
    (("number", tuple(NUMBERS)), *_ADJECTIVES, ("shape", tuple(map(plural, SHAPES)))),
    (*_OBJECT, ("", ("and",)), *_OBJECT),
)


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.data` for shapes."""
    del config
    return {
        "resolution": Field(32, "pixels a side", 8, 1024),
        "scenes": Field(0, "number of scenes of every split; 0 for the full numbers", 0),
    }


def make(config, split: str) -> source.Source:
    """Return the `shapes` source at `config.resolution`.

    `config.scenes` is the number of scenes of every split; 0 for those of SPLITS. Prepares all
    splits on first use. Raises ValueError if there is no such split.
    """
    from t2i_jax.data import shapes_builder  # here, so that scenes and captions need no TensorFlow

    if split not in SPLITS:
        raise ValueError(f"shapes has no split {split!r}: it has {', '.join(SPLITS)}")
    return shapes_builder.load(int(config.resolution), int(getattr(config, "scenes", 0)), split)


def _draw_descriptions(rng, kind, held_out) -> list[tuple[str, str, str]]:
    """Draw (size, colour, shape) of each object, uniform over what the kind allows.

    held_out: if True, there is a pair of HELD_OUT_PAIRS among them.
    """
    allowed = ALL_DESCRIPTIONS if held_out else TRAIN_DESCRIPTIONS
    while True:
        count = 1 if kind in ("one", "count") else 2
        chosen = [allowed[i] for i in rng.choice(len(allowed), count, replace=False)]
        if kind == "count":
            chosen = [("small", *chosen[0][1:])] * int(rng.integers(2, 5))
        if not held_out or any(each[1:] in HELD_OUT_PAIRS for each in chosen):
            return chosen


def _layouts(rng, descriptions, relation) -> Iterator[list[list[int]]]:
    """Yield centres [n, 2] (x, y) for objects of these sizes, without end, by rejection sampling.

    The objects are inside the canvas, apart from each other, and in the relation.
    """
    n = len(descriptions)
    side = np.array([SIZES[each[0]] * UNITS for each in descriptions])
    low = np.ceil(side / 2)[:, None]
    i, j = INDEX_PAIRS[n]
    while True:
        at = np.floor(low + rng.random((LAYOUTS_AT_ONCE, n, 2)) * (UNITS - 2 * low + 1))
        away = at[:, i] - at[:, j]
        good = (abs(away).max(2) >= (side[i] + side[j]) / 2 + MIN_GAP).all(1)
        if relation:
            axis, sign = RELATIONS[relation]
            good &= sign * away[:, 0, axis] >= MIN_ALONG
            good &= abs(away[:, 0, 1 - axis]) < MAX_ACROSS
        for layout in at[good]:
            yield layout.astype(int).tolist()


def _owner(objects):
    """Return the split that may have a picture of these objects, in any order.

    So no two splits share a picture.
    """
    part = zlib.crc32(repr(sorted(map(tuple, objects))).encode()) % NUM_PARTS
    return PART_OWNERS[part] if part < len(PART_OWNERS) else "train"


def _any_of(words):
    """Return a pattern for any of the words, the longest first.

    Group 1 is the word, group 2 the ending of its plural.
    """
    return r"\b(" + "|".join(sorted(words, key=len, reverse=True)) + r")(s|es)?\b"
