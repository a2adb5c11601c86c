"""How well a model takes noise away: PSNR of what it makes of a noisy picture against the clean one, over levels of noise."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from t2i_jax.metrics.robustness import score_under_noise
from t2i_jax.metrics.similarity import psnr

LEVELS = (8.0, 16.0, 32.0, 48.0, 64.0, 96.0, 128.0)  # standard deviations, of 255
HIGHEST = 100.0  # dB; a mean with the infinity of an equal picture says nothing


def grain(pictures: np.ndarray, seed: int, sigma: float) -> np.ndarray:
    """uint8 pictures with Gaussian noise of `sigma` levels of 255, rounded and clipped; a grey picture's noise is grey.

    The noise of the picture at place i depends on (seed, i) alone.
    """
    noisy = []
    for i, picture in enumerate(pictures):
        grey = (picture == picture[..., :1]).all()
        noise = np.random.default_rng((seed, i)).normal(0, sigma, (*picture.shape[:2], 1 if grey else 3))
        noisy.append(np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8))
    return np.stack(noisy)


def psnr_curve(reconstruct: Callable, pictures: np.ndarray, seed: int = 0, levels: Sequence[float] = LEVELS) -> dict:
    """{"sigma": [0, *levels], "noisy": [...], "reconstructed": [...]}: mean PSNR in dB against the clean pictures.

    reconstruct: uint8 [N, H, W, 3] -> the same shape.   pictures: clean ones.   Raises ValueError if there are none.
    """
    noises = {str(sigma): functools.partial(grain, sigma=sigma) for sigma in levels}

    def mean_psnr(a, b):
        return float(np.minimum(psnr(a, b), HIGHEST).mean())

    scores = {
        name: list(score_under_noise(act, pictures, mean_psnr, seed, noises).values())
        for name, act in (("noisy", lambda x: x), ("reconstructed", reconstruct))
    }
    return {"sigma": [0.0, *map(float, levels)], **scores}


def plot(curve: dict, path) -> Path:
    """Draws what `psnr_curve` gave to the PNG file `path`; gives the path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second to import, and only this needs it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120)
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    noisy, levels = np.asarray(curve["noisy"]), np.asarray(curve["sigma"])
    axis.plot(levels[levels > 0], noisy[levels > 0], "o--", label="the noisy picture")  # without noise it is the clean one
    axis.plot(levels, curve["reconstructed"], "o-", label="its reconstruction")
    axis.set(xlabel="standard deviation of the input's noise, in levels of 255", ylabel="PSNR against the clean picture, dB")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, format="png")
    return Path(path)
