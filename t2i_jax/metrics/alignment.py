"""Does the picture show what the caption says? Exact scores for `shapes`.

Both the picture and the caption are read back into objects, which are compared. Reading a picture
uses nothing that was learned:
- Pixels near a colour of the palette are core pixels. Every other pixel is judged by the colour of
  the nearest core pixel.
- Pixels that touch are one object.
- Shape, size and place of an object are those of the drawn template that differs least from it. An
  object that no template fits is counted, but agrees with no caption.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from t2i_jax.core.types import Pictures
from t2i_jax.data.render import BACKGROUND, COLOURS, SHAPES, SIZES, UNITS, coverage
from t2i_jax.data.shapes import KINDS, NUMBERS, RELATIONS, plural, undo_paraphrase
from t2i_jax.metrics.redraw import is_clean

ATOMS = ("count", "colour", "shape", "size", "relation")
RESAMPLES = 1000
# Distance of a pixel in levels: to a palette colour, up to which the pixel has that colour; and to
# every blend of it with the background, beyond which the pixel is strange.
COLOUR_TOLERANCE = 60.0
MIN_AMOUNT_IN_OBJECT = 0.35  # a pixel with this much of a colour is part of an object
MIN_AMOUNT_IN_PICTURE = 0.15  # a pixel with less of any colour is background
MIN_COLOUR_SHARE = 2 / 3  # share of an object's core pixels that have the colour of the object
MIN_OBJECT_AREA = 3 / 32**2  # share of the canvas (3 px at 32 px); smaller is a speck
# An object with a greater misfit (see _fit) has no shape: by eye, stars look like blobs there.
MAX_MISFIT = 1 / 6
MAX_SHIFT_PX = 1.0  # templates are tried this far around the centre of mass
# Share of the canvas: a relation needs centres this far apart along its axis.
MIN_RELATION_DISTANCE = 0.2


class Expectation(NamedTuple):
    """What a caption asks for.

    objects: (size, colour, shape) of each of the `count` objects.
    relation: of the first object to the second, "" if the caption states none.
    """

    kind: str
    objects: list[tuple[str, str, str]]
    count: int
    relation: str


class SeenObject(NamedTuple):
    """An object seen in a picture.

    size, colour, shape: None if it could not be read.
    x, y: the centre of its bounding box, as shares of the canvas.
    """

    size: str | None
    colour: str | None
    shape: str | None
    x: float
    y: float


def parse_caption(caption: str) -> Expectation:
    """Read a caption of `shapes` or a paraphrase. Raises ValueError if it is not in the grammar."""
    text = undo_paraphrase(caption.strip())
    if match := _COUNT.fullmatch(text):
        number, size, colour, shapes = match.groups()
        objects = [(size, colour, _SINGULAR[shapes])] * NUMBERS[number]
        return Expectation("count", objects, NUMBERS[number], "")
    if match := _ONE.fullmatch(text):
        size, colour, shape = match.groups()
        return Expectation("one", [(size, colour, shape)], 1, "")
    if match := _PAIR.fullmatch(text):
        *first, joined, size, colour, shape = match.groups()
        objects = [(first[0], first[1], first[2]), (size, colour, shape)]
        if joined == "and":
            return Expectation("two", objects, 2, "")
        return Expectation("relation", objects, 2, joined)
    raise ValueError(f"not a caption of shapes: {caption!r}")


def can_score(captions: Sequence[str]) -> bool:
    """Return whether all captions are in the grammar of `shapes`.

    Pictures of them can be scored exactly.
    """
    try:
        return all(parse_caption(caption) for caption in captions)
    except ValueError:
        return False


def read_picture(image: UInt8[np.ndarray, "R R 3"]) -> list[SeenObject]:
    """Return the objects in a picture, in no particular order.

    Touching pixels are one object if a template fits them and MIN_COLOUR_SHARE of them have its
    colour; otherwise they are separated by colour. What covers less than MIN_OBJECT_AREA of the
    canvas is ignored. Anything else that differs from the background and fits no template is a
    SeenObject without a shape.
    """
    picture = image.astype(np.float32) - _BACK
    distance = np.linalg.norm(picture[:, :, None] - _PALETTE, axis=-1)  # [R, R, colours]
    core = distance.min(-1) <= COLOUR_TOLERANCE
    hue = distance.argmin(-1)[_nearest(core)] if core.any() else distance.argmin(-1)
    full = _PALETTE[hue]
    amount = np.clip((picture * full).sum(-1) / (full**2).sum(-1), 0, 1)
    strange = np.linalg.norm(picture - amount[:, :, None] * full, axis=-1) > COLOUR_TOLERANCE
    shown = (amount >= MIN_AMOUNT_IN_PICTURE) | strange
    picture = np.where(shown[:, :, None], picture, 0)
    mass = np.where(strange, 1, amount)
    groups = _label((amount >= MIN_AMOUNT_IN_OBJECT) | strange)
    zones = groups[_nearest(groups > 0)] if groups.any() else groups
    found = []
    for k in _without_specks(groups, mass):
        group, zone = groups == k, zones == k
        whole = _fit(picture, mass, group, zone, hue[group & core])
        parts = [] if whole.shape else _parts(picture, mass, group, zone, hue, core)
        found += parts or [whole]
    return found


def score_picture(image: UInt8[np.ndarray, "R R 3"], caption: str) -> dict[str, bool | None]:
    """Return True or False for each of ATOMS and for "exact", None where it does not apply.

    count: there are as many objects as asked for.
    colour, shape, size: the right ones are there, each the right number of times.
    relation: it holds between the two objects that agree best with those of the caption, each in
        at least one attribute. See `relation_holds`. This is looser than the scenes of `shapes`,
        whose centres are 0.3 apart along the axis and less than 0.15 across it.
    exact: each object has its own size, colour and shape, the relation holds, and nothing else is
        in the picture.

    Raises ValueError if the caption is not in the grammar.
    """
    return judge(read_picture(image), parse_caption(caption))


def relation_holds(first: SeenObject, second: SeenObject, relation: str) -> bool:
    """Return whether `first` is in this relation to `second`.

    Their centres must be MIN_RELATION_DISTANCE apart along its axis, and less far across it.
    """
    axis, sign = RELATIONS[relation]
    away = (first.x - second.x, first.y - second.y)
    along = sign * away[axis]
    return along >= MIN_RELATION_DISTANCE and along > abs(away[1 - axis])


def score(
    images: Pictures,
    captions: Sequence[str],
    seed: int = 0,
    seen: Sequence[list[SeenObject]] | None = None,
) -> dict:
    """Read all pictures [R, R, 3] and return a report in plain data.

    The report is {"n", "exact", "strict", "atoms": {atom: ...}, "kinds": {kind: ...},
    "worst_kind"}. Strict pictures are exact, and clean too (`redraw.is_clean`); kinds are of exact
    ones. Each number is {"value", "low", "high", "n"}: the mean over the n pictures it applies to,
    and its 95 % percentile bootstrap interval (1,000 resamples). Atoms and kinds without a picture
    are left out.

    seen: what `read_picture` returned for each picture, if that is known already.

    Raises ValueError if there is no picture, or a caption is not in the grammar.
    """
    expected = [parse_caption(caption) for caption in captions]
    seen = [read_picture(image) for image in images] if seen is None else seen
    judged = [judge(objects, asked) for objects, asked in zip(seen, expected, strict=True)]
    if not judged:
        raise ValueError("there is no picture to score")
    rng = np.random.default_rng(seed)
    atoms = {atom: [j[atom] for j in judged if j[atom] is not None] for atom in ATOMS}
    kinds = {
        kind: [j["exact"] for j, e in zip(judged, expected, strict=True) if e.kind == kind]
        for kind in KINDS
    }
    report: dict = {"n": len(judged), "exact": share_interval([j["exact"] for j in judged], rng)}
    report["atoms"] = {
        name: share_interval(values, rng) for name, values in atoms.items() if values
    }
    report["kinds"] = {
        name: share_interval(values, rng) for name, values in kinds.items() if values
    }
    report["worst_kind"] = min(report["kinds"], key=lambda kind: report["kinds"][kind]["value"])
    strict = [
        j["exact"] and is_clean(image, objects)
        for j, image, objects in zip(judged, images, seen, strict=True)
    ]
    report["strict"] = share_interval(strict, rng)
    return report


def share_interval(values: Sequence | Bool[np.ndarray, "n"], rng: np.random.Generator) -> dict:
    """Return {"value", "low", "high", "n"}: the share of True among n values, and its interval.

    low and high are the 95 % bootstrap interval (1,000 resamples). The sum of n resampled truth
    values has a binomial distribution, which is drawn from.
    """
    n, mean = len(values), float(np.mean(values))
    low, high = np.percentile(rng.binomial(n, mean, RESAMPLES) / n, (2.5, 97.5))
    return {"value": mean, "low": float(low), "high": float(high), "n": n}


def format_report(report: dict) -> str:
    """Return the report of `score` as a table with one number per line, in percent."""
    rows = [("strict", report["strict"]), ("exact", report["exact"]), *report["atoms"].items()]
    rows += [(f"exact, {kind}", number) for kind, number in report["kinds"].items()]
    lines = [
        f"{name:<16}{100 * number['value']:6.1f} %"
        f"   [{100 * number['low']:5.1f}, {100 * number['high']:5.1f}]   of {number['n']:,}"
        for name, number in rows
    ]
    return "\n".join([*lines, f"worst kind: {report['worst_kind']}"])


def judge(seen: Sequence[SeenObject], asked: Expectation) -> dict[str, bool | None]:
    """Compare the objects of a picture with those of a caption; see `score_picture`."""
    found = [each[:3] for each in seen]
    report: dict[str, bool | None] = {"count": len(seen) == asked.count}
    for i, name in enumerate(("size", "colour", "shape")):
        report[name] = Counter(each[i] for each in found) == Counter(
            each[i] for each in asked.objects
        )
    report["relation"] = _asked_relation_holds(seen, asked) if asked.relation else None
    same = Counter(found) == Counter(asked.objects)
    report["exact"] = same and report["relation"] is not False
    return report


_BACK = np.array(BACKGROUND, np.float32)
_PALETTE = np.array(list(COLOURS.values()), np.float32) - _BACK  # relative to the background
_TOUCHING = np.ones((3, 3))  # pixels touch at corners too
_WORDS = rf"({'|'.join(SIZES)}) ({'|'.join(COLOURS)})"
_SINGULAR = {plural(shape): shape for shape in SHAPES}
_OBJECT = rf"a {_WORDS} ({'|'.join(SHAPES)})"
_ONE = re.compile(_OBJECT)
_PAIR = re.compile(rf"{_OBJECT} ({'|'.join(RELATIONS)}|and) {_OBJECT}")
_COUNT = re.compile(rf"({'|'.join(NUMBERS)}) {_WORDS} ({'|'.join(_SINGULAR)})")


def _label(mask) -> np.ndarray:
    """Number the groups of touching pixels of a mask from 1. The other pixels are 0."""
    labels: Any = ndimage.label(mask, _TOUCHING)
    return labels[0]


def _nearest(mask) -> tuple:
    """Return, for every pixel, the nearest pixel of the mask, as an index of [R, R] arrays."""
    index: Any = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return tuple(index)


def _without_specks(labels, mass):
    """Return the labels, from 1, that have at least the mass of MIN_OBJECT_AREA."""
    total = np.bincount(labels.ravel(), mass.ravel())
    return [k for k in range(1, len(total)) if total[k] >= MIN_OBJECT_AREA * labels.size]


def _parts(picture, mass, group, zone, hue, core):
    """Separate a group of pixels that is not one object by colour.

    Specks belong to the nearest part. Returns [] if there is one part only.
    """
    labels = np.zeros(group.shape, int)
    for colour in np.unique(hue[group]):
        found = _label(group & (hue == colour))
        labels = np.where(found > 0, found + labels.max(), labels)
    large = _without_specks(labels, mass)
    if len(large) < 2:
        return []
    nearest = labels[_nearest(np.isin(labels, large))]
    return [
        _fit(picture, mass, labels == k, zone & (nearest == k), hue[(labels == k) & core])
        for k in large
    ]


def _fit(picture, mass, mask, zone, hues):
    """Return the SeenObject at `mask` that explains the picture in `zone` best.

    The misfit is the squared difference, over all channels, between the picture and the best
    template drawn in the object's colour, as a share of the template's own squared difference from
    the background.

    hues: [n], the colours of its core pixels.
    """
    side = len(mask)
    half, table, energy, names = _templates(side)
    centre: Any = ndimage.center_of_mass(mass, mask)  # here pixel i spans [i - 0.5, i + 0.5]
    y, x = map(float, centre)
    votes = np.bincount(hues, minlength=len(_PALETTE))
    if votes.max() < MIN_COLOUR_SHARE * max(votes.sum(), 1):
        return SeenObject(None, None, None, (x + 0.5) / side, (y + 0.5) / side)
    full = _PALETTE[votes.argmax()]
    row, column = int(y + 0.5), int(x + 0.5)
    margins = np.array([(half, half), (half, half), (0, 0)])
    mine = np.pad(np.where(zone[:, :, None], picture, 0), margins)
    mine = mine[row : row + 2 * half + 1, column : column + 2 * half + 1].reshape(-1, 3)
    error = (mine**2).sum() / (full**2).sum() - 2 * table @ (mine @ full / (full**2).sum()) + energy
    best = error.argmin()
    size, shape, dx, dy = None, None, x - column, y - row
    if error[best] <= MAX_MISFIT * energy[best]:
        size, shape, dx, dy = names[best]
    return SeenObject(
        size,
        list(COLOURS)[votes.argmax()],
        shape,
        (column + 0.5 + dx) / side,
        (row + 0.5 + dy) / side,
    )


@lru_cache(maxsize=4)
def _templates(side):
    """Draw every shape and size at small shifts in a window of n = 2 half + 1 px.

    The centre of mass is within MAX_SHIFT_PX of the middle of the window. Returns half, the
    templates [T, n * n], the sum of squares of each [T], and a list of (size, shape, dx, dy). dx
    and dy lead from the middle of the window to the centre of the bounding box, in px.
    """
    half = int(np.ceil(max(SIZES.values()) * side * 0.75 + MAX_SHIFT_PX))
    step = max(side / UNITS, 0.25)
    shifts = np.arange(-np.floor(MAX_SHIFT_PX / step), MAX_SHIFT_PX / step + 1e-6) * step
    table, names = [], []
    for size in SIZES:
        for shape in SHAPES:
            # The centre of a patch is the corner of the middle pixel: -0.5, -0.5.
            patch = coverage(shape, size, side)
            centre = np.array(ndimage.center_of_mass(patch)) - len(patch) // 2 + 0.5
            for shift in np.stack(np.meshgrid(shifts, shifts), -1).reshape(-1, 2):
                # From the corner of the middle pixel, in 1/UNITS px.
                at = np.rint((shift - centre + 0.5) * UNITS).astype(int)
                (row, column), (phase_y, phase_x) = at // UNITS, at % UNITS
                patch = coverage(shape, size, side, int(phase_x), int(phase_y))
                window = np.zeros((2 * half + 1,) * 2, np.float32)
                top, left, h = half + row, half + column, len(patch) // 2
                window[top - h : top + h + 1, left - h : left + h + 1] = patch
                table.append(window.ravel())
                names.append((size, shape, at[1] / UNITS - 0.5, at[0] / UNITS - 0.5))
    table = np.stack(table)
    return half, table, (table**2).sum(1), names


def _asked_relation_holds(seen, asked):
    """Return whether the relation holds between the two objects that fit the caption best."""

    def agreement(pair):
        each = [
            sum(a == b for a, b in zip(seen_object[:3], words, strict=True))
            for seen_object, words in zip(pair, asked.objects, strict=True)
        ]
        return sum(each) if min(each) else 0

    pairs = list(permutations(seen, 2))
    best = max(map(agreement, pairs), default=0)
    return any(
        relation_holds(*pair, asked.relation) for pair in pairs if best and agreement(pair) == best
    )
