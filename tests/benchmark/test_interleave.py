"""Sides in processes of their own are measured in turn, and say what went wrong."""

import sys

import numpy as np
import pytest

from t2i_jax.benchmark import ceiling, side
from t2i_jax.benchmark.interleave import measure_in_turn

SIDE = """
import sys, time
from t2i_jax.benchmark import ceiling, side
ceiling.COPIED_BYTES = 2**12
name, path = sys.argv[1:]
def prepare():
    if name == "refuses":
        raise ValueError("too small: make it larger")
    if name == "dies":
        print("its last words", file=sys.stderr)
        sys.exit(3)
    print("not an answer")
    note("prepared")
    return side.Side(step, lambda: None, {"of": name}, repeats=2)
def note(what):
    with open(path, "a") as file:
        file.write(f"{name} {what},")
def step():
    note("step")
    time.sleep(0.02)
side.serve(prepare)
"""


def command(name, path):
    return [sys.executable, "-c", SIDE, name, str(path)]


def test_in_turn(tmp_path):
    """A B A B: each side prepares once, and then has one step left out and two measured a round."""
    path = tmp_path / "order"
    found = measure_in_turn({name: command(name, path) for name in "ab"}, rounds=2, steps=2)
    prepared = ["a prepared", "b prepared"]
    assert path.read_text().split(",")[:-1] == [*prepared, *(3 * ["a step"] + 3 * ["b step"]) * 2]
    assert {name: measured.info for name, measured in found.items()} == {
        "a": {"of": "a"},
        "b": {"of": "b"},
    }
    seconds = np.array([measured.rounds for measured in found.values()])
    assert seconds.shape == (2, 2, 2)
    assert (seconds >= 0.01).all() and (seconds < 0.02).any()  # a step of 0.02 s has two repeats
    assert all(len(measured.bytes_per_second) == 2 for measured in found.values())


def test_errors(tmp_path):
    with pytest.raises(ValueError, match=r"^b: too small: make it larger$"):
        measure_in_turn({"b": command("refuses", tmp_path / "order")}, 1, 1)
    with pytest.raises(RuntimeError, match=r"of b ended \(exit code 3\):\nits last words"):
        measure_in_turn({"b": command("dies", tmp_path / "order")}, 1, 1)


def test_a_side_that_dies_while_it_waits():
    ready = "import sys, time; time.sleep(float(sys.argv[1])); print('{\"info\": {}}')"
    commands = {
        name: [sys.executable, "-c", ready, wait] for name, wait in (("a", "0"), ("b", "0.5"))
    }
    with pytest.raises(RuntimeError, match=r"the process of a ended \(exit code 0\)"):
        measure_in_turn(commands, 1, 1)


def test_ceiling(monkeypatch):
    """Rates from made-up seconds: a product of 0.5 s, and a copy of 0.25 s.

    Three products take 1.8 s, and 2.7 s of processor time: three quarters of two cores.
    """
    times = iter(np.cumsum([0, 0, 0.7, 0, 0.5, 0, 0.6, 0, 0, 0.25, 0, 0.3, 0, 0.25]))
    used = iter([1.0, 3.7])
    monkeypatch.setattr(ceiling.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(ceiling.time, "process_time", lambda: next(used))
    monkeypatch.setattr(ceiling, "num_cores", lambda: 2)
    monkeypatch.setattr(ceiling, "SIZE", 100)
    monkeypatch.setattr(ceiling, "COPIED_BYTES", 800)
    assert ceiling.measure(lambda: None) == pytest.approx(
        {
            "flops_per_second": 2 * 100**3 / 0.5,
            "bytes_per_second": 1600 / 0.25,
            "core_share": 0.75,
        }
    )


def test_the_first_step_is_left_out(monkeypatch):
    monkeypatch.setattr(ceiling, "measure", lambda product: {"flops_per_second": 1.0})
    calls = []
    found = side.measure(side.Side(lambda: calls.append(0), lambda: None, {}), steps=3)
    assert len(calls) == 4 and len(found["seconds"]) == 3 and found["flops_per_second"] == 1.0
