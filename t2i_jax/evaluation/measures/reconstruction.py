"""How close are the reconstructions of a model to the true pictures?"""

import contextlib
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from t2i_jax.evaluation.draw import reconstruct
from t2i_jax.evaluation.measure import Measure, Trial
from t2i_jax.evaluation.picture_features import EXTRACTOR_BATCH
from t2i_jax.evaluation.plots import plot_denoising
from t2i_jax.features import extractor as extractors
from t2i_jax.metrics import denoising, robustness, similarity

MAX_PSNR_DB = 100.0  # PSNR of equal pictures is infinite, and would make every mean infinite
MAX_PICTURES_DENOISED = 128


def applies(trial: Trial) -> None:
    """Raise ValueError for a model that does not reconstruct."""
    if "reconstruct" not in trial.pipe.family.abilities:
        raise ValueError("this model does not reconstruct pictures")


def run(trial: Trial) -> dict:
    """Return PSNR in dB and SSIM; PSNR of reconstructions of noisy pictures; and "map_distance".

    "map_distance" is the distance of an extractor's feature maps, computed as LPIPS does, but
    without LPIPS's weights. It is left out if the extractor's weights are missing.
    """

    def reconstruct_pictures(images):
        return reconstruct(trial.pipe, trial.captions, images)

    again = reconstruct_pictures(trial.true)
    report = {
        "psnr": float(np.mean(_psnr(again, trial.true))),
        "ssim": float(np.mean(similarity.ssim(again, trial.true))),
        "psnr_under_noise": robustness.reconstruction_under_noise(
            reconstruct_pictures, trial.true, _psnr, trial.seed
        ),
        "denoising": denoising.psnr_curve(
            reconstruct_pictures, trial.true[:MAX_PICTURES_DENOISED], trial.seed
        ),
    }
    with contextlib.suppress(FileNotFoundError):
        distances = map_distances(trial.extractor, again, trial.true)
        if len(distances):
            value = float(np.mean(distances))
            report["map_distance"] = {"extractor": trial.extractor.name, "value": value}
    return report


def map_distances(
    extractor: extractors.Extractor,
    a: UInt8[np.ndarray, "N H W 3"],
    b: UInt8[np.ndarray, "N H W 3"],
) -> Float[np.ndarray, "M"]:
    """Return the distance of the feature maps of each pair; M is N, or 0 if there are no maps."""
    streams = (
        extractors.extract(extractor, [images], EXTRACTOR_BATCH, keys=("maps",))
        for images in (a, b)
    )
    distances = [
        similarity.perceptual_distance(x["maps"], y["maps"])
        for x, y in zip(*streams, strict=True)
        if "maps" in x
    ]
    return np.concatenate(distances) if distances else np.zeros(0)


def _psnr(a, b):
    return np.minimum(similarity.psnr(a, b), MAX_PSNR_DB)


def lines(report: dict, setting: dict) -> list[str]:
    """Return PSNR and SSIM."""
    return ["reconstruction: {psnr:.1f} dB PSNR, {ssim:.3f} SSIM".format(**report)]


def save(report: dict, folder: Path) -> None:
    """Plot PSNR against the noise of the input, to denoising.png."""
    if curve := report.get("denoising"):
        plot_denoising(curve, folder / "denoising.png")


MEASURE = Measure(
    name="reconstruction",
    order=40,
    applies=applies,
    run=run,
    lines=lines,
    save=save,
)
