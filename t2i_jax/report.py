"""The page of a comparison: a table, curves and pictures side by side, as Markdown and as one HTML file."""

import base64
import html
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from t2i_jax.grid import sheet
from t2i_jax.metrics.diversity import convergence

SIDE_BY_SIDE = 12  # captions shown


class Entry(NamedTuple):
    """One model: its metrics.json, its curves {metric: [(minutes of training, value), ...]}, its pictures, its loss.

    pictures: {"drawn", "true"}, uint8 [N, H, W, 3].   convergence: of the training loss, see metrics/diversity.py.
    """

    name: str
    metrics: dict
    curves: dict[str, list[tuple[float, float]]]
    pictures: dict[str, np.ndarray]
    convergence: dict


class Column(NamedTuple):
    """A column of the table. value: metrics.json -> a number or None. better: 1 if more is better, -1 if less, 0 if neither."""

    title: str
    value: Callable[[dict], Any]
    form: str
    better: int
    means: str


def _at(*path):
    def value(metrics):
        for key in path:
            metrics = metrics.get(key) if isinstance(metrics, dict) else None
        return metrics

    return value


def _count(*path):
    return lambda metrics: None if _at(*path)(metrics) is None else len(_at(*path)(metrics))


def _times(factor, value):
    return lambda metrics: None if value(metrics) is None else factor * value(metrics)


def _sum(*values):
    return lambda metrics: None if any(v(metrics) is None for v in values) else sum(v(metrics) for v in values)


COLUMNS = (
    Column("exact", _at("alignment", "drawn", "exact", "value"), "{:.3f}", 1, "captions drawn exactly right (share)"),
    Column(
        "class accuracy",
        _at("classification", "drawn", "accuracy", "value"),
        "{:.3f}",
        1,
        "pictures recognised as the class that was asked for, by a classifier fitted to real ones",
    ),
    Column("classes missing", _count("classification", "drawn", "missing"), "{:.0f}", -1, "never drawn, as far as it can tell"),
    Column("GenEval", _at("alignment", "geneval", "overall", "value"), "{:.3f}", 1, "mean of GenEval's six tasks, on shapes"),
    Column("under noise", _at("robustness", "mean"), "{:.3f}", 1, "exact, from misspelt and reworded captions"),
    Column(
        "R@5",
        _at("retrieval", "drawn", "captions_of_pictures", "R@5", "value"),
        "{:.3f}",
        1,
        "captions found by a self-trained probe",
    ),
    Column("KID x 1000", _times(1000, _at("fidelity", "kid", "drawn", "value")), "{:.1f}", -1, "distance from real pictures"),
    Column("precision", _at("fidelity", "precision_recall", "precision"), "{:.2f}", 1, "drawn that look real"),
    Column("recall", _at("fidelity", "precision_recall", "recall"), "{:.2f}", 1, "real that could be drawn"),
    Column("diversity", _at("diversity", "of_one_caption", "value"), "{:.2f}", 0, "feature distance within a caption"),
    Column("minutes", _at("minutes"), "{:.1f}", 0, "in training steps, the compiling of the first included"),
    Column(
        "parameters, M",
        _times(1e-6, _sum(_at("cost", "trained_parameters"), _at("cost", "frozen_parameters"))),
        "{:.2f}",
        -1,
        "numbers in its weights, frozen ones included",
    ),
    Column("GFLOP a picture", _times(1e-9, _at("cost", "draw_flops_per_picture")), "{:.2f}", -1, "arithmetic to draw one"),
    Column(
        "ms a picture", _times(1000, _at("cost", "draw_seconds_per_picture_at_best_batch")), "{:.0f}", -1, "at the best batch"
    ),
    Column("ms alone", _times(1000, _at("cost", "draw_latency_seconds")), "{:.0f}", -1, "latency at batch 1"),
    Column("images/s training", _at("cost", "train_pictures_per_second"), "{:.0f}", 1, "measured"),
)


def read_entry(name: str, workdir, measured) -> Entry:
    """What a run folder and the folder of its evaluation hold."""
    metrics = json.loads((Path(measured) / "metrics.json").read_text(encoding="utf-8"))
    with np.load(Path(measured) / "pictures.npz", allow_pickle=False) as file:
        pictures = {key: file[key] for key in ("drawn", "true")}
    timing, lines = (_read_lines(Path(workdir) / name) for name in ("timing.jsonl", "metrics.jsonl"))
    losses = {line["step"]: loss for line in lines if (loss := _training_loss(line)) is not None}
    clock = minutes_of(timing, metrics["setting"]["config"]["train"]["batch_size"])
    metrics["minutes"] = clock(timing[-1]["step"])
    return Entry(name, metrics, curves_of(lines, clock), pictures, convergence(list(losses), list(losses.values())))


def minutes_of(timing: Sequence[dict], batch_size: int) -> Callable[[int], float]:
    """step -> minutes spent until then in training steps (compiling the first one included), from a run's timing.jsonl."""
    steps = [0] + [line["step"] for line in timing]
    seconds = np.diff(steps) * batch_size / np.maximum([line["images_per_second"] for line in timing], 1e-9)
    minutes = np.concatenate([[0], np.cumsum(seconds) / 60])
    return lambda step: float(np.interp(step, steps, minutes))


def curves_of(lines: Sequence[dict], clock: Callable[[int], float]) -> dict[str, list[tuple[float, float]]]:
    """{metric: [(minutes, value), ...]} of a run's metrics.jsonl: scores and validation losses."""
    curves: dict[str, list] = {}
    for line in lines:
        for key, value in line.items():
            if key.startswith(("score/", "validation/")):
                curves.setdefault(key, []).append((clock(line["step"]), value))
    return curves


def _training_loss(line: dict) -> float | None:
    """The sum over players ("loss", or "generator/loss" and so on; not "caption_loss"); None in a line without."""
    training = {name: value for name, value in line.items() if not name.startswith("validation/")}
    losses = [value for name, value in training.items() if name.rpartition("/")[2] == "loss"]
    return sum(losses) if losses else None


def _read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(entries: Sequence[Entry], out, plan: dict) -> Path:
    """Writes report.html, report.md and their pictures to `out`; gives the path of the HTML."""
    out = Path(out)
    pictures = {"curves.png": _curves(entries)}
    if (beside := side_by_side(entries)) is not None:
        pictures["side_by_side.png"] = beside
    for name, image in pictures.items():
        image.save(out / name)
    columns = [c for c in COLUMNS if any(c.value(entry.metrics) is not None for entry in entries)]
    (out / "report.md").write_text(_markdown(entries, columns, plan, pictures), encoding="utf-8")
    (out / "report.html").write_text(_html(entries, columns, plan, pictures), encoding="utf-8")
    return out / "report.html"


def best(entries: Sequence[Entry], column: Column) -> set[str]:
    """The names of the best in a column; none where neither more nor less is better, or all are equal."""
    values = {entry.name: column.value(entry.metrics) for entry in entries}
    known = {name: value for name, value in values.items() if value is not None}
    if not column.better or len(set(known.values())) < 2:
        return set()
    top = (max if column.better > 0 else min)(known.values())
    return {name for name, value in known.items() if value == top}


def side_by_side(entries: Sequence[Entry]) -> Image.Image | None:
    """The same captions drawn by each model that draws, the true picture (with the caption) first; None if none draws."""
    entries = [entry for entry in entries if len(entry.pictures["drawn"])]
    if not entries:
        return None
    count = min(SIDE_BY_SIDE, *(len(entry.pictures["drawn"]) for entry in entries))
    columns = {"true": entries[0].pictures["true"], **{entry.name: entry.pictures["drawn"] for entry in entries}}
    captions = entries[0].metrics["captions"]
    images = np.stack([pictures[i] for i in range(count) for pictures in columns.values()])
    labels = [captions[i] if name == "true" else name for i in range(count) for name in columns]
    return sheet(images, labels, columns=len(columns) * max(8 // len(columns), 1), tile=96)


def findings(entries: Sequence[Entry]) -> list[str]:
    """What a person choosing a model wants to know first, a sentence each."""
    said = []
    for title, words in FIRST.items():
        column = next(c for c in COLUMNS if c.title == title)
        names = best(entries, column)
        if names:
            top = next(entry for entry in entries if entry.name in names)
            said.append(f"{words}: {' and '.join(sorted(names))} ({title} {column.form.format(column.value(top.metrics))}).")
    return said


def budget(plan: dict) -> str:
    """The budget of a plan, in words."""
    if plan["minutes"]:
        return f"each config trained for about {plan['minutes']:g} minutes (compiling and scoring apart)"
    return f"each config trained on {plan['pictures']:,} pictures" if plan["pictures"] else "runs as they were found"


def _curves(entries) -> Image.Image:
    import matplotlib  # half a second to import, and only this page needs it

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [key for key in CURVES if any(key in entry.curves for entry in entries)]
    columns = min(max(len(shown), 1), 3)
    rows = max(-(-len(shown) // columns), 1)
    figure, axes = pyplot.subplots(rows, columns, figsize=(6 * columns, 3.6 * rows), squeeze=False, dpi=120)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, key in zip(axes.flat, shown, strict=False):
        for entry in entries:
            if key in entry.curves:
                axis.plot(*zip(*entry.curves[key], strict=True), marker="o", markersize=3, label=entry.name)
        axis.set(xlabel="minutes of training", title=CURVES[key])
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pyplot.close(figure)
    return Image.open(buffer).convert("RGB")


def _rows(entries, columns):
    """(name, [(text, is best), ...]) of each model."""
    tops = [best(entries, column) for column in columns]
    for entry in entries:
        values = [column.value(entry.metrics) for column in columns]
        texts = ["" if v is None else column.form.format(v) for v, column in zip(values, columns, strict=True)]
        if columns and columns[0].title == "exact" and values[0] is not None:
            exact = entry.metrics["alignment"]["drawn"]["exact"]
            texts[0] += f" [{exact['low']:.3f}, {exact['high']:.3f}]"
        yield entry.name, [(text, entry.name in top) for text, top in zip(texts, tops, strict=True)]


def _notes(entries) -> list[str]:
    """What was not measured, and by which features what was."""
    missing: dict[str, list] = {}
    for entry in entries:
        for name, why in entry.metrics["not_measured"].items():
            missing.setdefault(f"{name} not measured: {why}", []).append(entry.name)
    said = [f"{', '.join(names)}: {what}" for what, names in missing.items()]
    rules = {(m["extractor"], m["rule"]) for e in entries if (m := e.metrics.get("fidelity"))}
    said += [f"KID, precision, recall and diversity are in the features of {name}: {rule}." for name, rule in sorted(rules)]
    real = {_at("fidelity", "kid", "real", "value")(e.metrics) for e in entries} - {None}
    said += [f"KID x 1000 between two sets of real pictures, the floor: {1000 * value:.1f}." for value in sorted(real)]
    for e in entries:
        state = {True: "still falls", False: "no longer falls", None: "is too short to say whether it falls"}
        state = state[e.convergence["falls"]]
        said.append(f"{e.name}: the training loss {state} at the end (spikes on the way: {e.convergence['spikes']}).")
    right = {_at("classification", "real", "accuracy", "value")(e.metrics) for e in entries} - {None}
    said += [f"Class accuracy of the real pictures, the ceiling: {value:.3f}." for value in sorted(right)]
    true = {e.metrics["alignment"]["true"]["value"] for e in entries if "alignment" in e.metrics}
    return said + [f"Exact score of the true pictures, the ceiling: {value:.4f}." for value in sorted(true)]


def _markdown(entries, columns, plan, pictures) -> str:
    lines = ["# Comparison", "", f"{budget(plan)[0].upper()}{budget(plan)[1:]}; {_asked(entries, plan)}.", ""]
    lines += [f"- {sentence}" for sentence in findings(entries)]
    lines += ["", f"| model | {' | '.join(c.title for c in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, cells in _rows(entries, columns):
        lines.append(f"| {name} | {' | '.join(f'**{text}**' if top else text for text, top in cells)} |")
    lines += ["", *(f"- {c.title}: {c.means}" for c in columns), "", *(f"- {note}" for note in _notes(entries))]
    lines += [line for name in pictures for line in ("", f"![{PICTURES[name][1]}]({name})")]
    return "\n".join([*lines, ""])


def _html(entries, columns, plan, pictures) -> str:
    def item(words):
        return f"<li>{html.escape(words)}</li>"

    def picture(name, image):
        buffer, (title, alt) = io.BytesIO(), PICTURES[name]
        image.save(buffer, "PNG")
        return f'<h2>{title}</h2><img alt="{alt}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'

    head = "".join(f'<th title="{html.escape(c.means)}">{html.escape(c.title)}</th>' for c in columns)
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(f'<td class="{"top" if top else ""}">{html.escape(text)}</td>' for text, top in cells)
        + "</tr>\n"
        for name, cells in _rows(entries, columns)
    )
    settings = html.escape(json.dumps({e.name: e.metrics["setting"] for e in entries}, indent=1, sort_keys=True))
    return PAGE.format(
        budget=html.escape(f"{budget(plan)[0].upper()}{budget(plan)[1:]}; {_asked(entries, plan)}."),
        findings="".join(map(item, findings(entries))),
        head=head,
        body=body,
        means="".join(item(f"{c.title}: {c.means}") for c in columns),
        notes="".join(map(item, _notes(entries))),
        pictures="\n".join(picture(name, image) for name, image in pictures.items()),
        settings=settings,
    )


def _asked(entries, plan) -> str:
    setting = entries[0].metrics["setting"]
    return f"measured on the same {setting['num']:,} captions of {plan['split']}, seed {plan['seed']}, on {setting['device']}"


FIRST = {
    "exact": "Most captions drawn exactly right",
    "class accuracy": "Most pictures of the class asked for",
    "R@5": "Most captions found again",
    "KID x 1000": "Closest to real pictures",
    "ms alone": "Quickest to draw one picture",
    "parameters, M": "Smallest",
}
CURVES = {
    "score/exact": "captions drawn exactly right",
    "score/accuracy": "pictures of the class asked for",
    "score/kid": "KID",
    "score/diversity": "distance between pictures, as a part of that of real ones",
    "score/vendi": "effective number of distinct pictures, as a part of that of real ones",
    "validation/loss": "validation loss",
}
PICTURES = {  # the title of its section, and what it shows
    "curves.png": ("While training", "scores against minutes"),
    "side_by_side.png": ("The same captions", "the same captions drawn by each"),
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Comparison</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1400px; margin: 2em auto; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
th, td {{ padding: .35em .6em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }}
th:first-child {{ text-align: left }} thead th {{ border-bottom: 2px solid #222; white-space: normal; vertical-align: bottom }}
.top {{ font-weight: 700; background: #e4f3e4 }} img {{ max-width: 100% }} ul {{ color: #444 }}
pre {{ background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: 12px }}
</style></head><body>
<h1>Comparison</h1><p>{budget}</p><ul>{findings}</ul>
<table><thead><tr><th>model</th>{head}</tr></thead><tbody>
{body}</tbody></table>
{pictures}
<h2>What the numbers mean</h2><ul>{means}</ul><ul>{notes}</ul>
<details><summary>Every setting</summary><pre>{settings}</pre></details>
</body></html>
"""
