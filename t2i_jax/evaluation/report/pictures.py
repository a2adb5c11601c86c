"""The pictures of a comparison: scores against minutes of training, and drawings side by side."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from t2i_jax.evaluation.contact_sheet import contact_sheet
from t2i_jax.evaluation.report.entry import Entry

MAX_CAPTIONS_SHOWN = 12
MIN_TILES_IN_A_ROW = 8
CURVES = {  # the metrics that are plotted, and the titles of their plots
    "score/strict": "captions drawn exactly right, and clean",
    "score/exact": "captions drawn exactly right",
    "score/accuracy": "pictures of the class asked for",
    "score/kid": "KID",
    "score/diversity": "distance between pictures, as a part of that of real ones",
    "score/vendi": "effective number of distinct pictures, as a part of that of real ones",
    "validation/loss": "validation loss",
}
LOSSES = ("validation/loss",)  # each family measures its own, in units of its own


class Picture(NamedTuple):
    """A picture of the report: its file name, the title of its section, and what it shows."""

    name: str
    title: str
    shows: str
    image: Image.Image


def make_report_pictures(entries: Sequence[Entry]) -> list[Picture]:
    """Return the pictures of the report."""
    curves = plot_curves(entries)
    pictures = [Picture("curves.png", "While training", "scores against minutes", curves)]
    if (drawings := side_by_side(entries)) is not None:
        shows = "the same captions drawn by each"
        pictures.append(Picture("side_by_side.png", "The same captions", shows, drawings))
    return pictures


def side_by_side(entries: Sequence[Entry]) -> Image.Image | None:
    """Return the same captions drawn by each model that makes pictures, or None if none does.

    The true picture, with the caption, comes first.
    """
    entries = [entry for entry in entries if len(entry.pictures["drawn"])]
    if not entries:
        return None
    count = min(MAX_CAPTIONS_SHOWN, *(len(entry.pictures["drawn"]) for entry in entries))
    columns = {
        "true": entries[0].pictures["true"],
        **{entry.name: entry.pictures["drawn"] for entry in entries},
    }
    captions = entries[0].metrics["captions"]
    images = np.stack([pictures[i] for i in range(count) for pictures in columns.values()])
    labels = [captions[i] if name == "true" else name for i in range(count) for name in columns]
    captions_in_a_row = max(MIN_TILES_IN_A_ROW // len(columns), 1)
    return contact_sheet(
        images, labels, columns=len(columns) * captions_in_a_row, tile=96, max_lines=None
    )


class Plot(NamedTuple):
    """A plot: its title, and for each model the points (minutes, value) of its curve."""

    title: str
    curves: dict[str, list[tuple[float, float]]]


def choose_plots(entries: Sequence[Entry]) -> list[Plot]:
    """Return a plot for each metric of CURVES that some model has.

    Losses of different families are not comparable, so each family has a plot of its own.
    """
    plots = []
    for key, title in CURVES.items():
        groups: dict[str, Plot] = {}
        for entry in entries:
            if key in entry.curves:
                family = entry.metrics["setting"]["config"].get("family", "")
                group = family if key in LOSSES else ""
                own = f"{title} of {group}" if group else title
                groups.setdefault(group, Plot(own, {})).curves[entry.name] = entry.curves[key]
        plots += groups.values()
    return plots


def plot_curves(entries: Sequence[Entry]) -> Image.Image:
    """Draw the plots of `choose_plots`, up to three in a row."""
    import matplotlib  # takes half a second to import, and only reports need it

    matplotlib.use("Agg")
    from matplotlib import pyplot

    plots = choose_plots(entries)
    columns = min(max(len(plots), 1), 3)
    rows = max(-(-len(plots) // columns), 1)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(6 * columns, 3.6 * rows), squeeze=False, dpi=120
    )
    for axis in axes.flat[len(plots) :]:
        axis.set_axis_off()
    colours = {entry.name: f"C{i}" for i, entry in enumerate(entries)}
    for axis, plot in zip(axes.flat, plots, strict=False):
        for name, points in plot.curves.items():
            minutes, values = zip(*points, strict=True)
            axis.plot(minutes, values, marker="o", markersize=3, label=name, color=colours[name])
        axis.set_title(plot.title, wrap=True)
        axis.set(xlabel="minutes of training")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pyplot.close(figure)
    return Image.open(buffer).convert("RGB")
