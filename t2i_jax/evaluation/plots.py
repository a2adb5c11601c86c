"""Plots of what metrics return, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def plot_denoising(curve: dict, path: str | Path) -> Path:
    """Draw the report of `denoising.psnr_curve` to the PNG file `path`. Returns the path."""
    figure = _figure(6, 4)
    axis = figure.add_subplot()
    noisy, levels = np.asarray(curve["noisy"]), np.asarray(curve["sigma"])
    # The noisy picture at level 0 is the clean one.
    axis.plot(levels[levels > 0], noisy[levels > 0], "o--", label="the noisy picture")
    axis.plot(levels, curve["reconstructed"], "o-", label="its reconstruction")
    axis.set(
        xlabel="standard deviation of the input's noise, in levels of 255",
        ylabel="PSNR against the clean picture, dB",
    )
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    return _save(figure, path)


def plot_trials(
    trials: Sequence[tuple[int, float, Mapping]],
    names: Sequence[str],
    metric: str,
    direction: str,
    path: str | Path,
) -> Path:
    """Draw the trials of a sweep to the PNG file `path`: in order, and against each setting.

    trials: (number, value of the metric, settings) in order. names: of the settings.
    direction: "maximize" or "minimize". Returns the path.
    """
    figure = _figure(4 * (1 + len(names)), 3.5)
    first, *others = figure.subplots(1, 1 + len(names), squeeze=False, sharey=True)[0]
    numbers, values = [number for number, _, _ in trials], [value for _, value, _ in trials]
    best = (np.maximum if direction == "maximize" else np.minimum).accumulate(values)
    first.plot(numbers, values, "o", label="a trial")
    first.plot(numbers, best, "-", drawstyle="steps-post", label="the best so far")
    first.set(xlabel="trial", ylabel=metric)
    first.legend(frameon=False)
    for axis, name in zip(others, names, strict=True):
        with_it = [(given[name], value) for _, value, given in trials if name in given]
        axis.plot(
            [str(x) if isinstance(x, str | bool) else x for x, _ in with_it],
            [y for _, y in with_it],
            "o",
        )
        axis.set(xlabel=name)
    for axis in (first, *others):
        axis.grid(alpha=0.3)
    return _save(figure, path)


def _figure(width: float, height: float):
    # Imported here, because it takes half a second, and little else needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120)
    FigureCanvasAgg(figure)
    return figure


def _save(figure, path: str | Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, format="png")
    return Path(path)
