"""What a benchmark writes: a JSON file, a table in Markdown and a plot."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from t2i_jax.core.files import atomic_path, write_atomically

LOADED = "other load"


def write(folder: Path, machine: Mapping[str, str], rows: Mapping[str, dict]) -> str:
    """Write benchmark.json, benchmark.md and benchmark.png to `folder`. Returns the Markdown.

    machine: what was measured with, {"cores": ..., "date": ...}.
    rows: {name: `figures.figures` of it, or {"title", "skipped": reason}}.
    """
    text = markdown(machine, rows)
    write_atomically(folder / "benchmark.json", json.dumps({**machine, "rows": rows}, indent=1))
    write_atomically(folder / "benchmark.md", text)
    with atomic_path(folder / "benchmark.png") as part:
        plot([found for found in rows.values() if "ratios" in found], part)
    return text


def markdown(machine: Mapping[str, str], rows: Mapping[str, dict]) -> str:
    """Return the tables: rows with a twin in PyTorch, then rows of ours alone."""
    lines = ["; ".join(f"{name}: {value}" for name, value in machine.items()), ""]
    twins = {name: row for name, row in rows.items() if "torch.compile" in row.get("ratios", {})}
    own = {name: row for name, row in rows.items() if "ratios" in row and name not in twins}
    if twins:
        lines += [
            "| row | what | parameters | ours, ms | over eager | over `torch.compile` | goal "
            "| of the ceiling | spread | |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *(_twin_line(name, row) for name, row in twins.items()),
            "",
        ]
    if own:
        lines += [
            "| row | what | ratio | goal | times | spread | |",
            "|---|---|---|---|---|---|---|",
            *(_own_line(name, row) for name, row in own.items()),
            "",
        ]
    for name, row in rows.items():
        if "skipped" in row:
            lines.append(f"Not measured: `{name}` ({row['title']}): {row['skipped']}.")
    return "\n".join(lines).rstrip() + "\n"


def _twin_line(name: str, row: dict) -> str:
    ours, ratios = row["sides"]["ours"], row["ratios"]
    cells = [
        f"`{name}`",
        row["title"],
        f"{ours['parameters'] / 1e6:.2f}M",
        f"{1000 * ours['seconds']:,.0f}",
        f"{ratios['torch']:.2f}",
        f"{ratios['torch.compile']:.2f}",
        f"{row['goal']:g}",
        ", ".join(f"{side['fraction']:.0%}" for side in row["sides"].values()),
        _spread(row),
        _mark(row),
    ]
    return f"| {' | '.join(cells)} |"


def _own_line(name: str, row: dict) -> str:
    times = [f"{side}: {show_time(found['seconds'])}" for side, found in row["sides"].items()]
    (ratio,) = row["ratios"].values()
    cells = [f"`{name}`", row["title"], f"{ratio:.2f}", f"{row['goal']:.2f}", ", ".join(times)]
    return f"| {' | '.join([*cells, _spread(row), _mark(row)])} |"


def show_time(seconds: float) -> str:
    """Return a time with three digits: "1.23 s" or "45.6 ms"."""
    number, unit = (seconds, "s") if seconds >= 1 else (1000 * seconds, "ms")
    digits = max(2 - math.floor(math.log10(number)), 0) if number > 0 else 0
    return f"{number:,.{digits}f} {unit}"


def _spread(row: dict) -> str:
    return f"{max(side['spread'] for side in row['sides'].values()):.0%}"


def _mark(row: dict) -> str:
    marks = [] if row["met"] else ["missed"]
    return ", ".join([*marks, *([LOADED] if row["loaded"] else [])])


def plot(rows: Sequence[dict], path: Path) -> None:
    """Draw the ratio of each row, as a share of its goal, to the PNG file `path`."""
    # Imported here, because it takes half a second, and only this function needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.4 * len(rows)), dpi=120)
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    shares = [share_of_goal(row) for row in rows]
    colours = ["tab:gray" if r["loaded"] else "tab:green" if r["met"] else "tab:red" for r in rows]
    axis.barh([row["title"] for row in rows], shares, color=colours)
    axis.axvline(1.0, color="black", linewidth=1)
    axis.invert_yaxis()
    axis.set_xlabel("share of the goal that is reached (gray: measured under other load)")
    axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, format="png")


def share_of_goal(row: dict) -> float:
    """Return 1 where the goal is just met, more where it is surpassed."""
    *_, last = row["ratios"].values()
    return last / row["goal"] if "torch.compile" in row["ratios"] else row["goal"] / last
