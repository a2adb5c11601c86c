"""Figures from made-up times, and what is written of them."""

import json

import pytest

from t2i_jax.benchmark import figures, report
from t2i_jax.benchmark.interleave import Measured
from t2i_jax.benchmark.rows import HALF_OF_FLOPS, Row

TWIN = Row("a train step", dict, goal=1.0, twin="dit")
OWN = Row("drawing", dict, goal=1.05, sides={"sampling": "", "calls": ""})
QUIET = [[0.9, 1.0, 1.1], [1.0, 1.0, 5.0], [1.02, 1.01, 1.03]]


def measured(rounds, flops=0, parameters=1_500_000):
    info = {"parameters": parameters, "flops": flops} if flops else {"parameters": parameters}
    return Measured(info, rounds, [3e9, 2e9, 4e9], [1e9, 2e9, 1e9])


def scaled(factor):
    return [[factor * x for x in seconds] for seconds in QUIET]


@pytest.fixture
def twin():
    sides = {
        "ours": measured(QUIET, flops=10**9),
        "torch": measured(scaled(2.0)),
        "torch.compile": measured(scaled(0.8)),
    }
    return figures.figures(TWIN, sides)


def test_a_row_with_a_twin(twin):
    """Speed over theirs: the time of theirs over ours. The rates are the best of all."""
    assert twin["ratios"] == pytest.approx({"torch": 2.0, "torch.compile": 0.8})
    assert not twin["met"] and not twin["loaded"]
    ours = twin["sides"]["ours"]
    assert ours["seconds"] == pytest.approx(1.0) and ours["spread"] == pytest.approx(0.02)
    assert ours["fraction"] == pytest.approx(1e9 / 1.0 / 4e9)
    assert twin["sides"]["torch"]["fraction"] == pytest.approx(1e9 / 2.0 / 4e9)
    assert (twin["flops_per_second"], twin["bytes_per_second"]) == (4e9, 2e9)


def test_the_ratio_is_of_sides_that_ran_one_after_the_other():
    """The machine slows down to a third: both sides alike, so the ratio stays."""
    rounds = [[1.0], [2.0], [3.0]]
    other = [[2.0], [4.0], [6.0]]
    sides = {"ours": measured(rounds, 10**9), "torch.compile": measured(other)}
    found = figures.figures(TWIN, sides)
    assert found["ratios"] == {"torch.compile": 2.0} and found["met"]
    assert found["loaded"] and found["sides"]["ours"]["spread"] == 1.0


def test_a_row_of_ours_alone():
    """Time over time; a goal may follow from the FLOPs."""
    sides = {"sampling": measured(scaled(1.04), 30), "calls": measured(QUIET, 100)}
    found = figures.figures(OWN, sides)
    assert found["ratios"] == pytest.approx({"calls": 1.04}) and found["met"]
    found = figures.figures(OWN._replace(goal=HALF_OF_FLOPS), sides)
    assert found["goal"] == pytest.approx(0.6) and not found["met"]


def test_written(twin, tmp_path):
    own = figures.figures(
        OWN, {"sampling": measured([[0.012], [0.02]]), "calls": measured([[0.01], [0.01]])}
    )
    skipped = {"title": "a U-Net", "skipped": "needs diffusers"}
    rows = {"dit": twin, "sampling": own, "unet": skipped}
    text = report.write(tmp_path, {"cores": "2", "date": "2026-11-28"}, rows)
    assert text == (tmp_path / "benchmark.md").read_text()
    lines = text.splitlines()
    assert lines[0] == "cores: 2; date: 2026-11-28"
    assert (
        "| `dit` | a train step | 1.50M | 1,000 | 2.00 | 0.80 | 1 | 25%, 12%, 31% | 2% | missed |"
        in lines
    )
    assert (
        "| `sampling` | drawing | 1.60 | 1.05 | sampling: 16.0 ms, calls: 10.0 ms | 50% "
        "| missed, other load |" in lines
    )
    assert lines[-1] == "Not measured: `unet` (a U-Net): needs diffusers."
    stored = json.loads((tmp_path / "benchmark.json").read_text())
    assert stored["rows"]["dit"]["ratios"]["torch"] == pytest.approx(2.0)
    assert stored["rows"]["dit"]["sides"]["ours"]["rounds"] == QUIET
    assert (tmp_path / "benchmark.png").read_bytes()[:4] == b"\x89PNG"


def test_share_of_goal(twin):
    """Larger is better in both kinds of rows."""
    assert report.share_of_goal(twin) == pytest.approx(0.8)
    own = {"ratios": {"calls": 2.1}, "goal": 1.05}
    assert report.share_of_goal(own) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1.234, "1.23 s"), (0.0456, "45.6 ms"), (12345.0, "12,345 s")]
)
def test_times_have_three_digits(seconds, shown):
    assert report.show_time(seconds) == shown
