"""Plots of what metrics return, as PNG files."""

from pathlib import Path

import numpy as np


def plot_denoising(curve: dict, path: str | Path) -> Path:
    """Draw the report of `denoising.psnr_curve` to the PNG file `path`. Returns the path."""
    # Imported here, because it takes half a second, and only this function needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120)
    FigureCanvasAgg(figure)
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
    figure.tight_layout()
    figure.savefig(path, format="png")
    return Path(path)
