"""One side of a comparison, in a process of its own: python -m t2i_jax.benchmark.side ROW SIDE DIR.

The process prepares, tells that it is ready, and then measures whenever it is asked to. Requests
and answers are lines of JSON on its standard input and output (interleave.py has the other end).
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from t2i_jax.benchmark import ceiling


class Side(NamedTuple):
    """What is measured.

    step: () -> None; it returns when its result is there.
    product: () -> None, a product of two float32 matrices of `ceiling.SIZE` x `ceiling.SIZE`.
    info: what the report tells: {"parameters": 2060000, "flops": ...}.
    repeats: what is measured happens so often in one step.
    """

    step: Callable[[], object]
    product: Callable[[], object]
    info: dict
    repeats: int = 1


def measure(side: Side, steps: int) -> dict:
    """Return the seconds of `steps` steps, after one that is left out, and the machine's rates."""
    rates = ceiling.measure(side.product)
    side.step()
    seconds = [seconds_of(side.step) / side.repeats for _ in range(steps)]
    return {"seconds": seconds, **rates}


def seconds_of(step: Callable) -> float:
    """Return how long one call takes."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def serve(prepare: Callable[[], Side]) -> None:
    """Prepare, then answer requests {"steps": N} until the standard input ends.

    An error that a user can mend is an answer too: {"error": message}.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that whatever prints in between does not mix with the answers

    def answer(found: dict) -> None:
        print(json.dumps(found), file=answers, flush=True)

    try:
        side = prepare()
    except (ValueError, ImportError) as error:
        answer({"error": str(error)})
        return
    answer({"info": side.info})
    for request in sys.stdin:
        answer(measure(side, **json.loads(request)))


def main() -> None:
    """Serve the side that the command line names."""
    from t2i_jax.benchmark.rows import ROWS, find_side

    row, name, folder = sys.argv[1:]
    serve(lambda: find_side(ROWS[row], name)(Path(folder)))


if __name__ == "__main__":
    main()
