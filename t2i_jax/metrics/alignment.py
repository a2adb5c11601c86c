"""Does the picture show what the caption says? Exact scores for `shapes`: both are read back into things, and compared.

Reading a picture uses nothing that was learned. Pixels near a colour of the palette are cores; the others are judged by
the colour of the nearest core; pixels that touch are a thing; its shape, size and place are those of the drawn template
that differs least from it. A thing that no template fits counts as a thing and agrees with no caption.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from t2i_jax.data.render import BACKGROUND, COLOURS, SHAPES, SIZES, UNITS, coverage
from t2i_jax.data.shapes import KINDS, NUMBERS, RELATIONS, plain, plural

ATOMS = ("count", "colour", "shape", "size", "relation")
NEAR = 60.0  # levels: so near to a colour of the palette is that colour; so far from every blend with it is strange
EDGE, FAINT = 0.35, 0.15  # so much of a colour is part of a thing; less than this is background
MOST = 2 / 3  # of a thing's core pixels are of the colour that it is said to have
SPECK = 3 / 32**2  # of the canvas (3 px at 32 px): less than this is not a thing
FIT = 1 / 6  # the misfit, see _fit, up to which a thing can be read; beyond it an eye no longer tells stars from blobs
REACH = 1.0  # px around the centre of mass in which templates are tried
FAR = 0.2  # of the canvas: a relation needs centres so far apart along its axis, and less apart across it


class Expectation(NamedTuple):
    """What a caption asks for: (size, colour, shape) of each of the `count` things; relation "" where none is said."""

    kind: str
    things: list[tuple[str, str, str]]
    count: int
    relation: str


class Read(NamedTuple):
    """A thing seen in a picture; x, y is the centre of its box in parts of the canvas. None: could not be read."""

    size: str | None
    colour: str | None
    shape: str | None
    x: float
    y: float


def parse_caption(caption: str) -> Expectation:
    """Reads a caption of `shapes`, paraphrases too. Raises ValueError if it is not in the grammar."""
    said = plain(caption.strip())
    if match := _COUNT.fullmatch(said):
        number, *words, shapes = match.groups()
        return Expectation("count", [(*words, _SINGULAR[shapes])] * NUMBERS[number], NUMBERS[number], "")
    if match := _ONE.fullmatch(said):
        return Expectation("one", [match.groups()], 1, "")
    if match := _PAIR.fullmatch(said):
        words = match.groups()
        joined, things = words[3], [words[:3], words[4:]]
        return Expectation("two", things, 2, "") if joined == "and" else Expectation("relation", things, 2, joined)
    raise ValueError(f"not a caption of shapes: {caption!r}")


def can_score(captions: Sequence[str]) -> bool:
    """Whether all captions are in the grammar of `shapes`, so that pictures of them can be scored exactly."""
    try:
        return all(parse_caption(caption) for caption in captions)
    except ValueError:
        return False


def read_picture(image: np.ndarray) -> list[Read]:
    """The things in a picture, uint8 [R, R, 3], in no order.

    Touching pixels are one thing if a template fits them and MOST of them are of its colour; otherwise they are parted
    by colour. What covers less than SPECK of the canvas is passed over; anything else that differs from the background
    and fits no template is a Read of None.
    """
    picture = image.astype(np.float32) - _BACK
    distance = np.linalg.norm(picture[:, :, None] - _PALETTE, axis=-1)  # [R, R, colours]
    core = distance.min(-1) <= NEAR
    hue = distance.argmin(-1)[_nearest(core)] if core.any() else distance.argmin(-1)
    full = _PALETTE[hue]
    amount = np.clip((picture * full).sum(-1) / (full**2).sum(-1), 0, 1)
    strange = np.linalg.norm(picture - amount[:, :, None] * full, axis=-1) > NEAR
    picture = np.where(((amount >= FAINT) | strange)[:, :, None], picture, 0)
    mass = np.where(strange, 1, amount)
    groups, _ = ndimage.label((amount >= EDGE) | strange, _TOUCHING)
    zones = groups[_nearest(groups > 0)] if groups.any() else groups
    found = []
    for k in _big(groups, mass):
        group = groups == k
        whole = _fit(picture, mass, group, zones == k, hue[group & core])
        found += [whole] if whole.shape else _parts(picture, mass, group, zones == k, hue, core) or [whole]
    return found


def score_picture(image: np.ndarray, caption: str) -> dict[str, bool | None]:
    """True or False for each of ATOMS and for "exact"; None where the caption says nothing of it.

    count: as many things as asked for. colour, shape, size: the right ones, the right number of times. relation: it
    holds between the two things that agree best with those named (each in one attribute at least): their centres are
    FAR apart in its direction, and less far across it; that is looser than the captions are (0.3 and 0.15). exact:
    each thing has its own size, colour and shape, the relation holds, and nothing else is in the picture.
    Raises ValueError if the caption is not in the grammar.
    """
    return _judge(read_picture(image), parse_caption(caption))


def related(first: Read, second: Read, relation: str) -> bool:
    """Whether `first` is so placed to `second`: FAR apart in the direction of the relation, and less far across it."""
    axis, sign = RELATIONS[relation]
    away = (first.x - second.x, first.y - second.y)
    return sign * away[axis] >= FAR and sign * away[axis] > abs(away[1 - axis])


def score(images: Sequence[np.ndarray], captions: Sequence[str], seed: int = 0, seen: Sequence | None = None) -> dict:
    """Reads all pictures, uint8 [N, R, R, 3]; a report in plain data. seen: what `read_picture` gave of each, if that was done.

    {"n", "exact", "atoms": {atom: ...}, "kinds": {kind: ...}, "worst_kind"}, where each number is {"value", "low",
    "high", "n"}: the mean over the n pictures it applies to, and its 95 % percentile bootstrap interval (1,000
    resamples). Atoms and kinds without a picture are left out.
    """
    expected = [parse_caption(caption) for caption in captions]
    seen = [read_picture(image) for image in images] if seen is None else seen
    judged = [_judge(things, what) for things, what in zip(seen, expected, strict=True)]
    if not judged:
        raise ValueError("there is no picture to score")
    rng = np.random.default_rng(seed)
    atoms = {atom: [j[atom] for j in judged if j[atom] is not None] for atom in ATOMS}
    kinds = {kind: [j["exact"] for j, e in zip(judged, expected, strict=True) if e.kind == kind] for kind in KINDS}
    report = {"n": len(judged), "exact": interval([j["exact"] for j in judged], rng)}
    report["atoms"] = {atom: interval(values, rng) for atom, values in atoms.items() if values}
    report["kinds"] = {kind: interval(values, rng) for kind, values in kinds.items() if values}
    report["worst_kind"] = min(report["kinds"], key=lambda kind: report["kinds"][kind]["value"])
    return report


def interval(values: Sequence[bool], rng: np.random.Generator) -> dict:
    """{"value", "low", "high", "n"}: the mean of n truths and its 95 % bootstrap interval (1,000 resamples).

    To resample n truths is to draw from a binomial.
    """
    n, mean = len(values), float(np.mean(values))
    low, high = np.percentile(rng.binomial(n, mean, 1000) / n, (2.5, 97.5))
    return {"value": mean, "low": float(low), "high": float(high), "n": n}


def format_report(report: dict) -> str:
    """The report of `score` as a table, a line a number, in percent."""
    rows = [("exact", report["exact"]), *report["atoms"].items()]
    rows += [(f"exact, {kind}", number) for kind, number in report["kinds"].items()]
    lines = [
        f"{name:<16}{100 * r['value']:6.1f} %   [{100 * r['low']:5.1f}, {100 * r['high']:5.1f}]   of {r['n']:,}"
        for name, r in rows
    ]
    return "\n".join([*lines, f"worst kind: {report['worst_kind']}"])


_BACK = np.array(BACKGROUND, np.float32)
_PALETTE = np.array(list(COLOURS.values()), np.float32) - _BACK  # as seen from the background
_TOUCHING = np.ones((3, 3))  # corners touch
_WORDS = rf"({'|'.join(SIZES)}) ({'|'.join(COLOURS)})"
_SINGULAR = {plural(shape): shape for shape in SHAPES}
_THING = rf"a {_WORDS} ({'|'.join(SHAPES)})"
_ONE = re.compile(_THING)
_PAIR = re.compile(rf"{_THING} ({'|'.join(RELATIONS)}|and) {_THING}")
_COUNT = re.compile(rf"({'|'.join(NUMBERS)}) {_WORDS} ({'|'.join(_SINGULAR)})")


def _nearest(mask):
    """For every pixel, where the nearest pixel of the mask is: an index of [R, R] arrays."""
    return tuple(ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True))


def _big(labels, mass):
    """The labels, from 1, whose mass is that of more than a speck."""
    total = np.bincount(labels.ravel(), mass.ravel())
    return [k for k in range(1, len(total)) if total[k] >= SPECK * labels.size]


def _parts(picture, mass, group, zone, hue, core):
    """A group that is not one thing, parted by colour; specks are left to the nearest part; [] if it is all one."""
    labels = np.zeros(group.shape, int)
    for colour in np.unique(hue[group]):
        found, _ = ndimage.label(group & (hue == colour), _TOUCHING)
        labels = np.where(found > 0, found + labels.max(), labels)
    big = _big(labels, mass)
    if len(big) < 2:
        return []
    nearest = labels[_nearest(np.isin(labels, big))]
    return [_fit(picture, mass, labels == k, zone & (nearest == k), hue[(labels == k) & core]) for k in big]


def _fit(picture, mass, mask, zone, hues):
    """The thing at `mask`, with all of the picture in `zone` laid to its account; hues [n]: those of its core pixels.

    The misfit is the squared difference, over all channels, between the picture and the best template drawn in the
    thing's colour, as a part of the template's own squared difference from the background.
    """
    side = len(mask)
    half, table, energy, names = _templates(side)
    y, x = map(float, ndimage.center_of_mass(mass, mask))  # here pixel i spans [i - 0.5, i + 0.5]
    votes = np.bincount(hues, minlength=len(_PALETTE))
    if votes.max() < MOST * max(votes.sum(), 1):
        return Read(None, None, None, (x + 0.5) / side, (y + 0.5) / side)
    full = _PALETTE[votes.argmax()]
    row, column = int(y + 0.5), int(x + 0.5)
    mine = np.pad(np.where(zone[:, :, None], picture, 0), ((half, half), (half, half), (0, 0)))
    mine = mine[row : row + 2 * half + 1, column : column + 2 * half + 1].reshape(-1, 3)
    error = (mine**2).sum() / (full**2).sum() - 2 * table @ (mine @ full / (full**2).sum()) + energy
    best = error.argmin()
    size, shape, dx, dy = names[best] if error[best] <= FIT * energy[best] else (None, None, x - column, y - row)
    return Read(size, list(COLOURS)[votes.argmax()], shape, (column + 0.5 + dx) / side, (row + 0.5 + dy) / side)


@lru_cache(maxsize=4)
def _templates(side):
    """Every shape and size, drawn with its centre of mass within REACH of the middle of a window of 2 half + 1 px.

    Returns half, the templates [T, n * n], the sum of squares of each [T], and for each (size, shape, dx, dy): the
    centre of its box from the middle of the window, in px.
    """
    half = int(np.ceil(max(SIZES.values()) * side * 0.75 + REACH))
    step = max(side / UNITS, 0.25)
    shifts = np.arange(-np.floor(REACH / step), REACH / step + 1e-6) * step
    table, names = [], []
    for size in SIZES:
        for shape in SHAPES:
            patch = coverage(shape, size, side)  # its centre is the corner of the middle pixel: -0.5, -0.5
            centre = np.array(ndimage.center_of_mass(patch)) - len(patch) // 2 + 0.5
            for shift in np.stack(np.meshgrid(shifts, shifts), -1).reshape(-1, 2):
                at = np.rint((shift - centre + 0.5) * UNITS).astype(int)  # from the corner of the middle pixel
                (row, column), (phase_y, phase_x) = at // UNITS, at % UNITS
                patch = coverage(shape, size, side, int(phase_x), int(phase_y))
                window, top, left = np.zeros((2 * half + 1,) * 2, np.float32), half + row, half + column
                h = len(patch) // 2
                window[top - h : top + h + 1, left - h : left + h + 1] = patch
                table.append(window.ravel())
                names.append((size, shape, at[1] / UNITS - 0.5, at[0] / UNITS - 0.5))
    table = np.stack(table)
    return half, table, (table**2).sum(1), names


def _judge(seen, asked):
    things = [thing[:3] for thing in seen]
    report = {"count": len(seen) == asked.count}
    for i, name in enumerate(("size", "colour", "shape")):
        report[name] = Counter(thing[i] for thing in things) == Counter(thing[i] for thing in asked.things)
    report["relation"] = _related(seen, asked) if asked.relation else None
    report["exact"] = Counter(things) == Counter(asked.things) and report["relation"] is not False
    return report


def _related(seen, asked):
    """Whether the relation holds between the two things that agree best with the first and second of the caption."""

    def agree(pair):
        each = [
            sum(a == b for a, b in zip(thing[:3], words, strict=True)) for thing, words in zip(pair, asked.things, strict=True)
        ]
        return sum(each) if min(each) else 0

    pairs = list(permutations(seen, 2))
    most = max(map(agree, pairs), default=0)
    return any(related(*pair, asked.relation) for pair in pairs if most and agree(pair) == most)
