"""Plots are PNG files."""

import numpy as np
from PIL import Image

from t2i_jax.evaluation.plots import plot_denoising


def test_plot_is_a_picture_and_leaves_pyplot_alone(tmp_path):
    curve = {"sigma": [0.0, 32.0], "noisy": [100.0, 18.0], "reconstructed": [24.0, 21.0]}
    path = plot_denoising(curve, tmp_path / "denoising.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG" and len(np.unique(np.asarray(picture))) > 10
