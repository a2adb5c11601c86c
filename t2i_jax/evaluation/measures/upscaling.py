"""How near do enlarged pictures come to the true ones, and how near does plain interpolation?"""

import numpy as np

from t2i_jax.evaluation.column import Column, at
from t2i_jax.evaluation.draw import enlarged_plainly, made_small
from t2i_jax.evaluation.measure import Measure, Trial
from t2i_jax.metrics import similarity
from t2i_jax.metrics.captioning import mean_interval

MAX_PSNR_DB = 100.0  # PSNR of equal pictures is infinite, and would make every mean infinite


def applies(trial: Trial) -> None:
    """Raise ValueError for a model that does not enlarge pictures."""
    if "upscale" not in trial.pipe.family.abilities:
        raise ValueError("this model does not enlarge pictures")


def run(trial: Trial) -> dict:
    """Return PSNR in dB and SSIM, over all three colours, of the model and of bicubic enlargement.

    "gain" is how many dB the model has more, with an interval.
    """
    scale = trial.pipe.config.superresolution.scale
    plain = enlarged_plainly(made_small(trial.pipe, trial.true, trial.seed), scale)
    model, bicubic = (_scores(pictures, trial.true) for pictures in (trial.drawn, plain))
    return {
        "scale": scale,
        **{name: float(np.mean(values)) for name, values in model.items()},
        "bicubic": {name: float(np.mean(values)) for name, values in bicubic.items()},
        "gain": mean_interval(model["psnr"] - bicubic["psnr"]),
    }


def _scores(pictures, true) -> dict[str, np.ndarray]:
    psnr = np.minimum(similarity.psnr(pictures, true), MAX_PSNR_DB)
    return {"psnr": psnr, "ssim": similarity.ssim(pictures, true)}


def lines(report: dict, setting: dict) -> list[str]:
    """Return PSNR and SSIM beside those of bicubic enlargement."""
    return [
        "enlarged {scale} times: {psnr:.2f} dB PSNR, {ssim:.4f} SSIM; bicubic ".format(**report)
        + "{psnr:.2f} dB, {ssim:.4f}; ".format(**report["bicubic"])
        + "gain {value:.2f} dB [{low:.2f}, {high:.2f}]".format(**report["gain"])
    ]


MEASURE = Measure(
    name="upscaling",
    order=45,
    applies=applies,
    run=run,
    usual=lambda pipe, source: "upscale" in pipe.family.abilities,
    lines=lines,
    columns=(
        Column(
            title="dB over bicubic",
            value=at("upscaling", "gain", "value"),
            format="{:.2f}",
            better=1,
            meaning="PSNR of enlarged pictures, above that of bicubic enlargement",
            order=45,
            headline="Nearest enlargements",
        ),
    ),
)
