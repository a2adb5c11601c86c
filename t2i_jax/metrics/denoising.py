"""How well does a model remove noise? PSNR of its reconstructions of noisy pictures."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from t2i_jax.metrics.robustness import score_under_noise
from t2i_jax.metrics.similarity import psnr

# Standard deviations of the noise, in levels of 255.
LEVELS = (8.0, 16.0, 32.0, 48.0, 64.0, 96.0, 128.0)
MAX_PSNR_DB = 100.0  # PSNR of equal pictures is infinite, and would make every mean infinite


def grain(
    pictures: UInt8[np.ndarray, "N H W 3"], seed: int, sigma: float
) -> UInt8[np.ndarray, "N H W 3"]:
    """Add Gaussian noise of standard deviation `sigma` (in levels of 255), rounded and clipped.

    The noise of a grey picture is grey. The noise of picture i depends on (seed, i) only.
    """
    noisy = []
    for i, picture in enumerate(pictures):
        grey = (picture == picture[..., :1]).all()
        channels = 1 if grey else 3
        noise = np.random.default_rng((seed, i)).normal(0, sigma, (*picture.shape[:2], channels))
        noisy.append(np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8))
    return np.stack(noisy)


def psnr_curve(
    reconstruct: Callable,
    pictures: UInt8[np.ndarray, "N H W 3"],
    seed: int = 0,
    levels: Sequence[float] = LEVELS,
) -> dict:
    """Return {"sigma": [0, *levels], "noisy": [...], "reconstructed": [...]}.

    The last two are the mean PSNR in dB, against the clean pictures, of the noisy pictures and of
    their reconstructions. A picture's PSNR counts as MAX_PSNR_DB at most.

    reconstruct: uint8 [N, H, W, 3] -> the same shape.
    pictures: the clean ones.

    Raises ValueError if there are none.
    """
    noises = {str(sigma): functools.partial(grain, sigma=sigma) for sigma in levels}

    def mean_psnr(a, b):
        return float(np.minimum(psnr(a, b), MAX_PSNR_DB).mean())

    scores = {
        name: list(score_under_noise(act, pictures, mean_psnr, seed, noises).values())
        for name, act in (("noisy", lambda x: x), ("reconstructed", reconstruct))
    }
    return {"sigma": [0.0, *map(float, levels)], **scores}
