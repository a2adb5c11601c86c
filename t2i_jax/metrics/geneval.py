"""GenEval's six tasks (arXiv 2310.11513, section 3), scored on `shapes` by what alignment.py reads in a picture.

GenEval asks an object detector; here pictures are read exactly, so only the questions are GenEval's. They are looser than
alignment's exact score: sizes are never asked for, colours in two tasks only, and what else is in the picture does not
matter (counting: nothing else of that shape). Nothing here is stricter: where a picture is exact, every task of its caption
holds. Against GenEval itself: a shape has to fit its template, where a detector is content with a likeness; in a position
the things lie FAR apart (alignment.py), where GenEval asks for a tenth of their added sizes; counting is the same.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from t2i_jax.metrics.alignment import Expectation, Read, interval, parse_caption, read_picture, related


class Task(NamedTuple):
    """kinds: of caption (shapes.KINDS) that ask it.   holds: (things seen in the picture, what the caption asks) -> bool."""

    kinds: tuple[str, ...]
    holds: Callable[[Sequence[Read], Expectation], bool]


def score(images: Sequence[np.ndarray], captions: Sequence[str], seed: int = 0, seen: Sequence | None = None) -> dict:
    """Reads all pictures, uint8 [N, R, R, 3]; a report in plain data. seen: what `read_picture` gave of each, if that was done.

    {"overall", "tasks": {task: ...}}, each {"value", "low", "high", "n"} with a 95 % bootstrap interval (1,000 resamples):
    a task's is the share of the pictures whose caption asks it, the overall is the unweighted mean over tasks, n pictures
    resampled together. Tasks that no caption asks are left out, also of the mean. Raises ValueError if there is no
    picture, not as many as captions, or a caption is not in the grammar.
    """
    if not len(images) or len(images) != len(captions):
        raise ValueError(f"{len(images)} pictures and {len(captions)} captions: there must be as many, and at least one")
    seen = [read_picture(image) for image in images] if seen is None else seen
    judged = [judge(things, parse_caption(caption)) for things, caption in zip(seen, captions, strict=True)]
    names = [task for task in TASKS if any(task in j for j in judged)]
    rng = np.random.default_rng(seed)
    tasks = {task: interval([j[task] for j in judged if task in j], rng) for task in names}
    asked = np.array([[task in j for task in names] for j in judged], float)
    held = np.array([[j.get(task, False) for task in names] for j in judged], float)
    times = rng.multinomial(len(judged), np.full(len(judged), 1 / len(judged)), 1000)  # of each picture in each resample
    count = times @ asked
    means = (times @ held / np.maximum(count, 1)).sum(1) / (count > 0).sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    value = float(np.mean([report["value"] for report in tasks.values()]))
    return {"overall": {"value": value, "low": float(low), "high": float(high), "n": len(judged)}, "tasks": tasks}


def judge(seen: Sequence[Read], asked: Expectation) -> dict[str, bool]:
    """{task: whether it holds} for the TASKS that such a caption asks."""
    return {name: task.holds(seen, asked) for name, task in TASKS.items() if asked.kind in task.kinds}


def _shapes_there(seen, asked):
    """Every shape that is named is there, twice if it is named twice."""
    return Counter(shape for _, _, shape in asked.things) <= Counter(thing.shape for thing in seen)


def _counted(seen, asked):
    """There are exactly as many of the shape as the caption says."""
    return sum(thing.shape == asked.things[0][2] for thing in seen) == asked.count


def _bound(seen, asked):
    """Every (colour, shape) that is named is there, on one and the same thing."""
    return Counter(words[1:] for words in asked.things) <= Counter((thing.colour, thing.shape) for thing in seen)


def _placed(seen, asked):
    """Two things of the shapes that are named, so placed; of several such pairs, one that best has the named colours.

    Colours only choose, so that of two stars it is the red one that has to be above; a wrong colour does not fail.
    """
    pairs = [pair for pair in permutations(seen, 2) if [x.shape for x in pair] == [words[2] for words in asked.things]]
    right = [sum(x.colour == words[1] for x, words in zip(pair, asked.things, strict=True)) for pair in pairs]
    return any(related(*pair, asked.relation) for pair, n in zip(pairs, right, strict=True) if n == max(right))


TASKS = {
    "single_object": Task(("one",), _shapes_there),
    "two_objects": Task(("two", "relation"), _shapes_there),
    "counting": Task(("count",), _counted),
    "colours": Task(("one",), _bound),
    "position": Task(("relation",), _placed),
    "attribute_binding": Task(("two", "relation"), _bound),
}
