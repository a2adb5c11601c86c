"""metrics.jsonl is cut back to a checkpoint's step, whatever a kill left in it."""

import json
from types import SimpleNamespace

from t2i_jax.training import writers as writers_module
from t2i_jax.training.trackers import Tracker
from t2i_jax.training.writers import Writers, cut_back


def test_cut_back_drops_later_and_broken_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": s, "loss": s / 10}) + "\n" for s in (10, 20, 20, 30)]
    path.write_text("".join(lines) + '{"step": 40, "lo')
    cut_back(path, 20)
    assert path.read_text() == "".join(lines[:3])
    cut_back(path, 5)
    assert path.read_text() == ""
    cut_back(tmp_path / "none.jsonl", 5)
    assert not (tmp_path / "none.jsonl").exists()


def test_cut_back_drops_an_evaluation_that_did_not_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [
        {"step": step, name: 0.5}
        for step in (10, 20)
        for name in ("loss", "validation/loss", "score/a")
    ]
    lines = [json.dumps(row) + "\n" for row in rows]
    path.write_text("".join(lines))
    cut_back(path, 20)
    assert path.read_text() == "".join(lines)
    cut_back(path, 20, evaluated=False)
    assert path.read_text() == "".join(lines[:4])


def test_lines_and_speed(tmp_path):
    told = []
    tracker = Tracker(lambda *x: told.append(x), lambda *x: told.append(x), lambda: told.append(()))
    writers = Writers(tmp_path, 0, 10, 4, trackers=[tracker])
    writers.progress(2, {"loss": 0.5})
    writers.write(2, {"validation/loss": 0.25})
    writers.image("samples", 2, "a picture")
    writers.close()
    numbers = [(2, {"loss": 0.5}), (2, {"validation/loss": 0.25})]
    assert told == [*numbers, ("samples", 2, "a picture"), ()]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 2, "loss": 0.5}, {"step": 2, "validation/loss": 0.25}]
    (timing,) = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert timing["step"] == 2 and timing["images_per_second"] > 0
    again = Writers(tmp_path, 1, 10, 4)
    again.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_pauses_do_not_count(tmp_path, monkeypatch):
    """8 examples in 2 s of training, whatever else was done for 100 s between."""
    clock = iter([0.0, 1.0, 101.0, 102.0])
    monkeypatch.setattr(
        writers_module, "time", SimpleNamespace(monotonic=lambda: next(clock), time=lambda: 0.0)
    )
    writers = Writers(tmp_path, 0, 10, 4)
    with writers.paused():
        pass
    writers.progress(2, {"loss": 0.5})
    writers.close()
    assert json.loads((tmp_path / "timing.jsonl").read_text())["images_per_second"] == 4.0


def test_a_log_file_gets_a_line_now_and_then(tmp_path, capsys):
    """Standard output is no terminal here: no bar leaves its control characters behind."""
    writers = Writers(tmp_path, 0, 1000, 4)
    writers.bar.update()
    writers.progress(50, {"loss": 0.5, "accuracy": 1.0})
    writers.close()
    said = capsys.readouterr().out
    assert said.startswith("step 50 of 1,000: loss 0.5, img/s ") and "\r" not in said
