"""How near do translated pictures come to the other set, and to their true translations?"""

import functools

import numpy as np

from t2i_jax.evaluation.column import Column, at
from t2i_jax.evaluation.draw import translate
from t2i_jax.evaluation.measure import Measure, Trial, collect
from t2i_jax.evaluation.picture_features import extract_features
from t2i_jax.metrics import fidelity, similarity
from t2i_jax.metrics.captioning import mean_interval

MAX_PSNR_DB = 100.0  # PSNR of equal pictures is infinite, and would make every mean infinite


def applies(trial: Trial) -> None:
    """Raise ValueError for a model that does not translate, and for data of one set."""
    if "translate" not in trial.pipe.family.abilities:
        raise ValueError("this model does not translate pictures")
    if trial.source.second is None:
        raise ValueError("this data has no second set of pictures to translate to")


def run(trial: Trial) -> dict:
    """Return {"forward": report, "backward": report}, of translations to each set.

    A report compares the translated pictures, and those left as they are, with the set they are
    translated to. "kid" is the distance from that set, and "psnr" (dB) and "feature_distance" are
    from the true translation of each picture, for a split that has pairs. "change" is
    that of the model less that of pictures left as they are, with an interval.
    """
    second = trial.source.second
    assert second is not None  # see `applies`
    pictures = {
        "first": trial.true,
        "second": second.read(np.arange(min(len(trial.true), len(second.captions)))),
    }
    made = {
        "forward": trial.drawn,
        "backward": translate(trial.pipe, pictures["second"], "backward"),
    }

    @functools.cache
    def features(name: str) -> np.ndarray:
        try:
            return extract_features(trial.extractor, {**pictures, **made}[name])["features"]
        except FileNotFoundError as error:  # the rest can be measured without it
            raise ValueError(str(error)) from error

    def psnr(name: str, target: str) -> np.ndarray:
        found = similarity.psnr({**pictures, **made}[name], pictures[target])
        return np.minimum(found, MAX_PSNR_DB)

    def distance(name: str, target: str) -> np.ndarray:
        return np.linalg.norm(features(name) - features(target), axis=1)

    def report(direction: str, start: str, target: str) -> dict:
        parts = {
            "kid": lambda: {
                "translated": fidelity.kid(features(target), features(direction)),
                "untranslated": fidelity.kid(features(target), features(start)),
            }
        }
        if trial.source.paired:
            for name, found in {"psnr": psnr, "feature_distance": distance}.items():
                parts[name] = lambda found=found: _change(
                    found(direction, target), found(start, target)
                )
        return collect(parts)

    return {
        "forward": report("forward", "first", "second"),
        "backward": report("backward", "second", "first"),
    }


def _change(translated: np.ndarray, untranslated: np.ndarray) -> dict:
    return {
        "translated": float(translated.mean()),
        "untranslated": float(untranslated.mean()),
        "change": mean_interval(translated - untranslated),
    }


def lines(report: dict, setting: dict) -> list[str]:
    """Return a line for each direction and number, beside that of pictures left as they are."""
    said = []
    for direction in ("forward", "backward"):
        own = report[direction]
        for name, title in (("psnr", "PSNR in dB"), ("feature_distance", "feature distance")):
            if name in own:
                told = "{translated:.2f}, untranslated {untranslated:.2f}".format(**own[name])
                change = "change {value:.2f} [{low:.2f}, {high:.2f}]".format(**own[name]["change"])
                said.append(f"{direction}: {title} from the true translation {told}; {change}")
        if "kid" in own:
            both = [
                "{:.1f} [{:.1f}, {:.1f}]".format(
                    *(1000 * own["kid"][which][key] for key in ("value", "low", "high"))
                )
                for which in ("translated", "untranslated")
            ]
            told = f"{both[0]}, untranslated {both[1]}"
            said.append(f"{direction}: KID x 1000 from the other set {told}")
        said += [f"  {name} refused: {why}" for name, why in own["refused"].items()]
    return said


MEASURE = Measure(
    name="translation",
    order=46,
    applies=applies,
    run=run,
    usual=lambda pipe, source: "translate" in pipe.family.abilities and bool(source.second),
    lines=lines,
    columns=(
        Column(
            title="dB over untranslated",
            value=at("translation", "forward", "psnr", "change", "value"),
            format="{:.2f}",
            better=1,
            meaning="PSNR of translated pictures, above that of pictures left as they are",
            order=46,
            headline="Nearest translations",
        ),
    ),
)
