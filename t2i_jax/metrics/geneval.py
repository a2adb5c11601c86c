"""GenEval's six tasks (arXiv 2310.11513, section 3) for `shapes`, read by alignment.py.

GenEval asks an object detector. Here pictures are read exactly; only the questions are GenEval's.

Compared with the exact score of alignment.py, the tasks are looser: size is never asked for, colour
in two tasks only, and other objects do not matter (in counting: other objects of another shape).
Nothing is stricter: where a picture is exact, every task of its caption holds.

Compared with GenEval, a shape has to fit its template, where a detector accepts a similar shape.
For a position, objects must be MIN_RELATION_DISTANCE apart (alignment.py), where GenEval asks for a
tenth of the sum of their sizes. Counting is the same.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from t2i_jax.core.types import Pictures
from t2i_jax.metrics.alignment import (
    RESAMPLES,
    Expectation,
    SeenObject,
    parse_caption,
    read_picture,
    relation_holds,
    share_interval,
)


class Task(NamedTuple):
    """A question about a picture.

    kinds: the kinds of caption (shapes.KINDS) that ask it.
    holds: (objects seen in the picture, what the caption asks for) -> bool.
    """

    kinds: tuple[str, ...]
    holds: Callable[[Sequence[SeenObject], Expectation], bool]


def score(
    images: Pictures,
    captions: Sequence[str],
    seed: int = 0,
    seen: Sequence[list[SeenObject]] | None = None,
) -> dict:
    """Read all pictures [R, R, 3] and return a report in plain data.

    The report is {"overall", "tasks": {task: ...}}. Each number is {"value", "low", "high", "n"}
    with a 95 % bootstrap interval (1,000 resamples). The number of a task is its share of the
    pictures whose caption asks it. "overall" is the unweighted mean over tasks; n pictures are
    resampled together. Tasks that no caption asks are left out, also of the mean.

    seen: what `read_picture` returned for each picture, if that is known already.

    Raises ValueError if there is no picture, not one per caption, or a caption is not in the
    grammar.
    """
    if not len(images) or len(images) != len(captions):
        raise ValueError(
            f"{len(images)} pictures and {len(captions)} captions: "
            "there must be as many, and at least one"
        )
    seen = [read_picture(image) for image in images] if seen is None else seen
    judged = [
        judge(objects, parse_caption(caption))
        for objects, caption in zip(seen, captions, strict=True)
    ]
    names = [task for task in TASKS if any(task in j for j in judged)]
    rng = np.random.default_rng(seed)
    tasks = {task: share_interval([j[task] for j in judged if task in j], rng) for task in names}
    asked = np.array([[task in j for task in names] for j in judged], float)
    passed = np.array([[j.get(task, False) for task in names] for j in judged], float)
    # How often each picture is in each resample.
    times = rng.multinomial(len(judged), np.full(len(judged), 1 / len(judged)), RESAMPLES)
    count = times @ asked
    means = (times @ passed / np.maximum(count, 1)).sum(1) / (count > 0).sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    value = float(np.mean([report["value"] for report in tasks.values()]))
    return {
        "overall": {"value": value, "low": float(low), "high": float(high), "n": len(judged)},
        "tasks": tasks,
    }


def judge(seen: Sequence[SeenObject], asked: Expectation) -> dict[str, bool]:
    """Return {task: whether it holds} for the TASKS that such a caption asks."""
    return {
        name: task.holds(seen, asked) for name, task in TASKS.items() if asked.kind in task.kinds
    }


def _has_shapes(seen, asked):
    """Return whether every named shape is there, twice if it is named twice."""
    named = Counter(shape for _, _, shape in asked.objects)
    return named <= Counter(each.shape for each in seen)


def _has_count(seen, asked):
    """Return whether there are exactly as many objects of the shape as the caption asks for."""
    return sum(each.shape == asked.objects[0][2] for each in seen) == asked.count


def _has_coloured_shapes(seen, asked):
    """Return whether every named pair (colour, shape) is there, on one object."""
    named = Counter(words[1:] for words in asked.objects)
    return named <= Counter((each.colour, each.shape) for each in seen)


def _has_relation(seen, asked):
    """Return whether the relation holds between two objects of the named shapes.

    Colours only choose between several such pairs: of two stars, it is the red one that has to be
    above. A wrong colour does not fail.
    """
    pairs = [
        pair
        for pair in permutations(seen, 2)
        if [each.shape for each in pair] == [words[2] for words in asked.objects]
    ]
    right_colours = [
        sum(each.colour == words[1] for each, words in zip(pair, asked.objects, strict=True))
        for pair in pairs
    ]
    return any(
        relation_holds(*pair, asked.relation)
        for pair, count in zip(pairs, right_colours, strict=True)
        if count == max(right_colours)
    )


TASKS = {
    "single_object": Task(("one",), _has_shapes),
    "two_objects": Task(("two", "relation"), _has_shapes),
    "counting": Task(("count",), _has_count),
    "colours": Task(("one",), _has_coloured_shapes),
    "position": Task(("relation",), _has_relation),
    "attribute_binding": Task(("two", "relation"), _has_coloured_shapes),
}
