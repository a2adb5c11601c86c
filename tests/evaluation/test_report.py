"""The report of a comparison says what the numbers say, and its page needs no other file."""

import json
import re

import numpy as np
import pytest
from PIL import ImageDraw

from t2i_jax.evaluation.contact_sheet import contact_sheet
from t2i_jax.evaluation.report import table
from t2i_jax.evaluation.report.entry import (
    Entry,
    curves_of,
    minutes_of,
    read_entry,
    training_loss,
)
from t2i_jax.evaluation.report.pictures import CURVES, choose_plots, plot_curves, side_by_side
from t2i_jax.evaluation.report.write import write_report
from t2i_jax.metrics.diversity import convergence

PLAN = {"minutes": 3.0, "pictures": 0, "split": "test", "seed": 0}


def entry(name, exact, kid, seconds):
    """A model of which three numbers are known."""
    number = {"value": exact, "low": exact - 0.01, "high": exact + 0.01, "n": 9}
    metrics = {
        "setting": {"num": 9, "device": "cpu", "config": {}},
        "captions": [f"caption {i} <b>" for i in range(9)],
        "not_measured": {"retrieval": "no <weights>"},
        "alignment": {
            "drawn": {"strict": number, "exact": number},
            "true": {"value": 0.9995},
            "geneval": {"overall": {"value": 0.5}},
        },
        "cost": {"draw_latency_seconds": seconds},
    }
    if name == "a":
        metrics["classification"] = {
            "drawn": {"accuracy": number, "missing": []},
            "real": {"accuracy": {"value": 0.9125}},
        }
    if name == "c":  # unconditional
        metrics["classification"] = {"drawn": {"missing": ["bag", "coat"]}, "real": {"missing": []}}
    if kid is not None:
        pair = {"drawn": {"value": kid}, "real": {"value": 0.0001}}
        metrics["fidelity"] = {"extractor": "Extractor", "rule": "a rule", "kid": pair}
    rng = np.random.default_rng(len(name))
    pictures = {
        key: rng.integers(0, 256, (9, 8, 8, 3)).astype(np.uint8) for key in ("drawn", "true")
    }
    curves = {"score/exact": [(1.0, exact / 2), (3.0, exact)]}
    trend = convergence(range(40), [100 * exact - i for i in range(40)])
    return Entry(name, metrics, curves, pictures, trend)


@pytest.fixture
def entries():
    return [
        entry("a", 0.25, 0.012, 0.5),
        entry("b<i>", 0.75, None, 0.125),
        entry("c", 0.5, 0.034, 0.125),
    ]


def columns():
    return {column.title: column for column in table.all_columns()}


def test_the_best_of_a_column(entries):
    assert table.best(entries, columns()["exact"]) == {"b<i>"}
    assert table.best(entries, columns()["KID x 1000"]) == {"a"}, (
        "less is better, and a model without a number is not the best"
    )
    assert table.best(entries, columns()["ms alone"]) == {"b<i>", "c"}
    assert table.best(entries, columns()["GenEval"]) == set(), "all are equal"
    assert table.best(entries, columns()["diversity"]) == set()
    assert [columns()["class accuracy"].value(e.metrics) for e in entries] == [0.25, None, None]
    assert [columns()["classes missing"].value(e.metrics) for e in entries] == [0, None, 2]
    assert table.best(entries, columns()["classes missing"]) == {"a"}


def test_what_is_said_first(entries):
    assert table.headlines(entries) == [
        "Most captions drawn exactly right: b<i> (strict 0.750).",
        "Closest to real pictures: a (KID x 1000 12.0).",
        "Quickest to draw one picture: b<i> and c (ms alone 125).",
    ]


def test_minutes_of_training():
    """They come from the speed between two lines: pauses between two starts do not count."""
    timing = [
        {"step": 10, "images_per_second": 2.0, "time": 5.0},
        {"step": 30, "images_per_second": 4.0, "time": 9e9},
    ]
    lines = [
        {"step": 10, "loss": 1.0},
        {"step": 20, "score/exact": 0.5},
        {"step": 30, "score/exact": 0.75, "validation/loss": 2},
    ]
    curves = curves_of(lines, minutes_of(timing, batch_size=12))
    assert set(curves) == {"score/exact", "validation/loss"}
    # 10 x 12 / 2 s, and 20 x 12 / 4 s
    np.testing.assert_allclose(curves["score/exact"], [(1.5, 0.5), (2.0, 0.75)])


def test_the_page(entries, tmp_path):
    page = write_report(entries, tmp_path, PLAN)
    text = page.read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]{1,30})', text)
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r'(href|src)="(?!data:)', text), "the page is one file"
    assert "<b>" not in text and "<weights>" not in text and "b&lt;i&gt;" in text
    assert '<td class="top">0.750 [0.740, 0.760]</td>' in text and "about 3 minutes" in text
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    rows = {
        line.split("|")[1].strip(): line for line in markdown.splitlines() if line.startswith("| ")
    }
    assert "**0.750 [0.740, 0.760]**" in rows["b<i>"] and "**12.0**" in rows["a"]
    assert "recall" not in rows["model"]
    for note in (
        "Extractor: a rule",
        "floor: 0.1",
        "ceiling: 0.9995",
        "Class accuracy of the real pictures, the ceiling: 0.912.",
        "a, b<i>, c: retrieval not measured: no <weights>",
        "a: the training loss still falls",
    ):
        assert note in markdown
    assert (tmp_path / "curves.png").is_file() and (tmp_path / "side_by_side.png").is_file()


def test_every_known_curve_is_drawn(entries):
    """Three in a row: seven curves are three times as high a picture as two."""
    few = plot_curves(entries)
    for key in CURVES:
        entries[0].curves[key] = [(1.0, 0.5), (2.0, 0.25)]
    many = plot_curves(entries)
    assert many.height == 3 * few.height and many.width == 3 * few.width


def test_side_by_side(entries):
    """Three models: each true picture stands left of what the models drew, enlarged."""
    page = np.asarray(side_by_side(entries))
    true, first = entries[0].pictures["true"][0], entries[0].pictures["drawn"][0]
    side = 8 * 12  # a tile of 96 px
    for column, picture in ((0, true), (1, first)):
        left = 8 + column * (side + 8)
        np.testing.assert_array_equal(
            page[8 : 8 + side, left : left + side], picture.repeat(12, 0).repeat(12, 1)
        )


def test_a_model_that_draws_nothing_is_not_shown_beside_the_others(entries, tmp_path):
    def mute(entry):
        return entry._replace(pictures={**entry.pictures, "drawn": entry.pictures["drawn"][:0]})

    some = [mute(entries[0]), *entries[1:]]
    np.testing.assert_array_equal(side_by_side(some), side_by_side(entries[1:]))
    assert side_by_side([mute(entry) for entry in entries]) is None
    path = write_report([mute(entry) for entry in entries], tmp_path, PLAN)
    page = path.read_text(encoding="utf-8")
    assert page.count("<img ") == 1 and "While training" in page and "The same captions" not in page
    assert "side_by_side" not in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert not (tmp_path / "side_by_side.png").exists()


def test_the_loss_is_that_of_the_players():
    """It is not a part of it that a family reports too, nor that of validation."""
    line = {"step": 1, "loss": 3.0, "caption_loss": 1.0, "validation/loss": 9.0}
    assert training_loss(line) == 3.0
    line = {"generator/loss": 1.0, "discriminator/loss": 0.5, "generator/extra_loss": 9.0}
    assert training_loss(line) == 1.5
    assert training_loss({"step": 1, "validation/loss": 9.0}) is None


def test_an_entry_is_read_from_its_folders(entries, tmp_path):
    metrics = {**entries[0].metrics, "setting": {"config": {"train": {"batch_size": 12}}}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    np.savez(tmp_path / "pictures.npz", **entries[0].pictures)
    speeds = [{"step": 10, "images_per_second": 2.0}, {"step": 30, "images_per_second": 4.0}]
    lines = [{"step": i, "loss": 100.0 - i} for i in range(30)] + [{"step": 30, "score/kid": 0.5}]
    for name, rows in (("timing", speeds), ("metrics", lines)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    found = read_entry("a", tmp_path, tmp_path)
    assert found.name == "a" and found.metrics == {**metrics, "minutes": 2.0}
    assert found.curves == {"score/kid": [(2.0, 0.5)]} and found.convergence["falls"]
    for key, pictures in entries[0].pictures.items():
        np.testing.assert_array_equal(found.pictures[key], pictures)


def of_family(entry, family, loss):
    """Return the model as one of another family, with a validation loss."""
    setting = {**entry.metrics["setting"], "config": {"family": family}}
    curves = {**entry.curves, "validation/loss": [(1.0, loss), (2.0, loss / 2)]}
    return entry._replace(metrics={**entry.metrics, "setting": setting}, curves=curves)


def test_losses_of_different_families_never_share_an_axis(entries):
    a, b, c = entries
    models = [of_family(a, "gan", 3.0), of_family(b, "diffusion", 0.1), of_family(c, "gan", 4.0)]
    plots = {plot.title: plot.curves for plot in choose_plots(models)}
    assert set(plots["validation loss of gan"]) == {"a", "c"}
    assert plots["validation loss of diffusion"] == {"b<i>": [(1.0, 0.1), (2.0, 0.05)]}
    assert set(plots["captions drawn exactly right"]) == {"a", "b<i>", "c"}, "a score is shared"
    assert len(plots) == 3


def test_captions_are_whole_beside_the_pictures(entries, monkeypatch):
    """Also one of many lines: each word of it is drawn."""
    caption = " ".join(f"word{i}" for i in range(60))
    drawn = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "multiline_text", lambda pen, place, text, **_: drawn.append(text)
    )
    for entry in entries:
        entry.metrics["captions"][0] = caption
    side_by_side(entries)
    assert caption in [" ".join(text.split()) for text in drawn]


def test_a_caption_that_is_cut_on_a_sheet_says_so(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "multiline_text", lambda pen, place, text, **_: drawn.append(text)
    )
    contact_sheet(np.zeros((2, 8, 8, 3), np.uint8), ["word " * 100, "short"], tile=96)
    assert drawn[0].endswith("word ...") and len(drawn[0].splitlines()) == 3
    assert drawn[1] == "short"


def test_the_page_fits_a_narrow_screen(entries, tmp_path):
    """What is wider than the screen scrolls by itself; the page does not."""
    text = write_report(entries, tmp_path, PLAN).read_text(encoding="utf-8")
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert text.count('<div class="wide"><img ') == text.count("<img ") == 2
    for rule in (
        r"\.wide { overflow-x: auto }",
        r"table {[^}]*display: block; overflow-x: auto }",
        r"pre {[^}]*overflow-x: auto",
        r"body {[^}]*overflow-wrap: anywhere",
    ):
        assert re.search(rule, text), rule
