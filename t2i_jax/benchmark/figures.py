"""Figures of a row from what its sides measured: ratio, spread, share of the ceiling, marks."""

import statistics
from collections.abc import Mapping, Sequence

from t2i_jax.benchmark.interleave import Measured
from t2i_jax.benchmark.rows import HALF_OF_FLOPS, Row

# Above this spread of the rounds, other programs were using the machine.
LARGEST_SPREAD = 0.15


def middle(rounds: Sequence[Sequence[float]]) -> float:
    """Return the median over rounds of the median of each."""
    return statistics.median(map(statistics.median, rounds))


def spread(rounds: Sequence[Sequence[float]]) -> float:
    """Return how far the medians of the rounds are apart, (largest - smallest) / middle."""
    medians = [statistics.median(seconds) for seconds in rounds]
    return (max(medians) - min(medians)) / statistics.median(medians)


def figures(row: Row, measured: Mapping[str, Measured]) -> dict:
    """Return the figures of a row as plain data.

    measured: by side, ours first. The ratio is computed in each round from sides that ran one after
    the other, and is the median of these. Of a row with a twin it is the speed of ours over that of
    the last side; of a row of ours alone it is the time of the first side over that of the last.
    fraction: of the FLOPs a second of the same run's large matrix product, the best of all sides.
    loaded: whether the rounds of a side differ so much that there was other load.
    """
    best = max(rate for side in measured.values() for rate in side.flops_per_second)
    copied = max(rate for side in measured.values() for rate in side.bytes_per_second)
    flops = next(iter(measured.values())).info.get("flops")
    sides = {}
    for name, side in measured.items():
        seconds = middle(side.rounds)
        sides[name] = {
            **side.info,
            "seconds": seconds,
            "spread": spread(side.rounds),
            "rounds": side.rounds,
        }
        if flops and row.twin:
            sides[name]["fraction"] = flops / seconds / best
    first, *others = measured
    ratios = {name: _ratio(row, measured[first], measured[name]) for name in others}
    last, goal = ratios[others[-1]], row.goal
    if goal == HALF_OF_FLOPS:
        goal = 2 * measured[first].info["flops"] / measured[others[-1]].info["flops"]
    return {
        "title": row.title,
        "sides": sides,
        "ratios": ratios,
        "goal": goal,
        "met": last >= goal if row.twin else last <= goal,
        "loaded": any(side["spread"] > LARGEST_SPREAD for side in sides.values()),
        "flops_per_second": best,
        "bytes_per_second": copied,
    }


def _ratio(row: Row, ours: Measured, other: Measured) -> float:
    """Return the median of the rounds' ratios; see `figures`."""
    pairs = zip(ours.rounds, other.rounds, strict=True)
    times = [statistics.median(a) / statistics.median(b) for a, b in pairs]
    return statistics.median([1 / time for time in times] if row.twin else times)
