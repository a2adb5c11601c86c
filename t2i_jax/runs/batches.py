"""Run an ability of a family on any number of examples: in batches, each one compiled call."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from t2i_jax.core.arguments import MAX_NUM, whole_number
from t2i_jax.core.family import Family
from t2i_jax.core.progress import watched_inputs
from t2i_jax.core.random import keys_at
from t2i_jax.runs.drawn import padded_size


@functools.partial(jax.jit, static_argnames=("ability", "static"))
def run_ability(ability, variables, inputs, keys, settings, static=()):
    """Run an ability as one compiled function.

    settings: {name: value}, traced.   static: ((name, value), ...), compiled in.
    """
    return ability(variables, inputs, keys, **settings, **dict(static))


def split_static(family: Family, settings: dict[str, Any]) -> tuple[dict[str, Any], tuple]:
    """Return (the settings that are traced, those that are compiled in), as `run_ability` has them.

    Settings that are captions are in neither: they are inputs.
    """
    static, captions = {*family.static}, {*family.texts}
    compiled = tuple((name, settings[name]) for name in sorted(static & settings.keys()))
    return {k: v for k, v in settings.items() if k not in static | captions}, compiled


def run_in_batches(
    run: Callable, inputs: dict, settings: dict, static: tuple, seed: int | None, batch: int
) -> Iterator[np.ndarray]:
    """Yield the results for at most `batch` examples at once.

    The last batch is padded with its last example, and its result cut. Without a seed, the ability
    gets no keys.
    run: (inputs, keys, settings, static) -> an array of a row for each example.
    """
    whole_number("batch", batch, 1, MAX_NUM)
    count = len(jax.tree.leaves(inputs)[0])
    for first in range(0, count, batch):
        size = padded_size(min(count - first, batch), batch)
        rows = np.minimum(first + np.arange(size), count - 1)
        part = jax.tree.map(lambda x, rows=rows: x[rows], inputs)
        keys = None if seed is None else keys_at(seed, first + np.arange(size))
        part |= watched_inputs(size, min(size, count - first))
        yield np.asarray(run(part, keys, settings, static))[: count - first]
