"""How near do enlarged pictures come to the true ones, and how near does plain interpolation?"""

import numpy as np

from t2i_jax.evaluation.column import Column, at
from t2i_jax.evaluation.draw import enlarged_plainly, made_small
from t2i_jax.evaluation.measure import Measure, Trial, collect
from t2i_jax.evaluation.picture_features import extract_features
from t2i_jax.metrics import fidelity, similarity
from t2i_jax.metrics.captioning import mean_interval

MAX_PSNR_DB = 100.0  # PSNR of equal pictures is infinite, and would make every mean infinite


def applies(trial: Trial) -> None:
    """Raise ValueError for a model that does not enlarge pictures."""
    if "upscale" not in trial.pipe.family.abilities:
        raise ValueError("this model does not enlarge pictures")


def run(trial: Trial) -> dict:
    """Return PSNR in dB and SSIM, over all three colours, of the model and of bicubic enlargement.

    "gain" is how many dB the model has more, with an interval. "kid" is the distance of the
    enlarged pictures from the true ones, as sets, in the features of an extractor, and
    "feature_distance" the mean distance of each from its own; both of the model and of "bicubic".
    """
    scale = trial.pipe.config.superresolution.scale
    plain = enlarged_plainly(made_small(trial.pipe, trial.true, trial.seed), scale)
    model, bicubic = (_scores(pictures, trial.true) for pictures in (trial.drawn, plain))
    return {
        "scale": scale,
        **{name: float(np.mean(values)) for name, values in model.items()},
        "bicubic": {name: float(np.mean(values)) for name, values in bicubic.items()},
        "gain": mean_interval(model["psnr"] - bicubic["psnr"]),
        "in_features": _in_features(trial, plain),
    }


def _in_features(trial: Trial, plain: np.ndarray) -> dict:
    """Return "kid" and "feature_distance" of `run`, or under "refused" why they are missing."""
    try:
        true = trial.true_features["features"]
        found = {"model": trial.drawn_features["features"]}
        found["bicubic"] = extract_features(trial.extractor, plain)["features"]
    except FileNotFoundError as error:  # the rest can be measured without it
        return {"refused": {"features": str(error)}}
    parts = {
        "kid": lambda: {name: fidelity.kid_of_pairs(true, x) for name, x in found.items()},
        "feature_distance": lambda: {
            name: mean_interval(np.linalg.norm(x - true, axis=1)) for name, x in found.items()
        },
    }
    return {"extractor": trial.extractor.name, **collect(parts)}


def _scores(pictures, true) -> dict[str, np.ndarray]:
    psnr = np.minimum(similarity.psnr(pictures, true), MAX_PSNR_DB)
    return {"psnr": psnr, "ssim": similarity.ssim(pictures, true)}


def lines(report: dict, setting: dict) -> list[str]:
    """Return PSNR, SSIM and the distances in features beside those of bicubic enlargement."""
    said = [
        "enlarged {scale} times: {psnr:.2f} dB PSNR, {ssim:.4f} SSIM; bicubic ".format(**report)
        + "{psnr:.2f} dB, {ssim:.4f}; ".format(**report["bicubic"])
        + "gain {value:.2f} dB [{low:.2f}, {high:.2f}]".format(**report["gain"])
    ]
    found = report["in_features"]
    for name, title, factor in (
        ("kid", "KID x 1000", 1000),
        ("feature_distance", "distance from the true picture", 1),
    ):
        if name in found:
            both = [
                "{:.2f} [{:.2f}, {:.2f}]".format(
                    *(factor * found[name][which][key] for key in ("value", "low", "high"))
                )
                for which in ("model", "bicubic")
            ]
            said.append(f"  {title} ({found['extractor']}): {both[0]}; bicubic {both[1]}")
    return said + [f"  {name} refused: {why}" for name, why in found["refused"].items()]


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
