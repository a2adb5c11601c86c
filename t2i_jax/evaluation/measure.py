"""The contract of a measure: a Trial goes in, plain data comes out.

To add a measure, add a file evaluation/measures/NAME.py that defines `MEASURE`. The numbers
themselves are computed by the pure functions of metrics/.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from t2i_jax.core.source import Source
from t2i_jax.evaluation import picture_features
from t2i_jax.evaluation.column import Column
from t2i_jax.features.extractor import Extractor
from t2i_jax.pipeline import Pipeline


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is measured: a model, captions, their true pictures, and the pictures of the model.

    split: the split of the data that `source` is.
    captions, true: of the first N examples of `source`.
    drawn: what the model made of the captions (`draw.make_pictures`); M is N or 0.
    """

    pipe: Pipeline
    split: str
    source: Source
    seed: int
    captions: list[str]
    true: UInt8[np.ndarray, "N H W 3"]
    drawn: UInt8[np.ndarray, "M H W 3"]

    @functools.cached_property
    def extractor(self) -> Extractor:
        """The feature extractor of the config. FileNotFoundError if its weights are missing."""
        return picture_features.load_extractor(self.pipe.config)

    @functools.cached_property
    def drawn_features(self) -> dict[str, Float[np.ndarray, "M _"]]:
        """The features of the drawn pictures, computed once for all measures."""
        return picture_features.extract_features(self.extractor, self.drawn)

    @functools.cached_property
    def true_features(self) -> dict[str, Float[np.ndarray, "N _"]]:
        """The features of the true pictures."""
        index = np.arange(len(self.true))
        return picture_features.cached_features(self.extractor, self.source, index)


class Measure(NamedTuple):
    """One measure of a model: how it is taken, and how it is shown.

    name: its key in metrics.json, and the name of its file.
    order: its place among the measures, when they are taken, listed and summed up.
    run: (trial) -> plain data (JSON). Raises ValueError if there is too little to measure, and
        FileNotFoundError, saying how to get them, if weights are missing.
    applies: (trial) -> None. Raises ValueError, with the reason, if such a model or such captions
        cannot be measured like this.
    usual: (pipeline, source) -> whether it is one of the measures by which such models are known,
        and therefore taken when the user names none.
    lines: (what `run` returned, "setting" of metrics.json) -> lines of `summary` for a person.
    concludes: whether its lines end the summary, below what was not measured.
    columns: its columns in the table of `compare`.
    notes: (what `run` returned, for each model that has it) -> lines below that table.
    save: (what `run` returned, folder) -> None. Writes plots beside metrics.json.
    """

    name: str
    order: int
    run: Callable[[Trial], dict]
    applies: Callable[[Trial], None] = lambda trial: None
    usual: Callable[[Pipeline, Source], bool] = lambda pipe, source: False
    lines: Callable[[dict, dict], list[str]] = lambda report, setting: []
    concludes: bool = False
    columns: Sequence[Column] = ()
    notes: Callable[[Sequence[dict]], list[str]] = lambda reports: []
    save: Callable[[dict, Path], None] = lambda report, folder: None


@functools.cache
def load_measures() -> Mapping[str, Measure]:
    """Return all measures by name, in their order: MEASURE of every file of evaluation/measures."""
    names = [file.stem for file in (Path(__file__).parent / "measures").glob("*.py")]
    modules = [
        importlib.import_module(f"t2i_jax.evaluation.measures.{name}")
        for name in names
        if name != "__init__"
    ]
    measures = sorted((m.MEASURE for m in modules), key=lambda m: (m.order, m.name))
    return {measure.name: measure for measure in measures}


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError, naming the measures there are, for a name that is not one of them."""
    known = load_measures()
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"there is no measure {unknown[0]!r}: there are {', '.join(known)}")


def take(measure: Measure, trial: Trial) -> dict:
    """Check that `measure` applies to `trial`, and return what it measures."""
    measure.applies(trial)
    return measure.run(trial)


def require_pictures(trial: Trial) -> None:
    """Raise ValueError if the model made no pictures that could be compared with the true ones."""
    if "translate" in trial.pipe.family.abilities:
        raise ValueError("this model translates pictures: the measure translation is for it")
    if "stylize" in trial.pipe.family.abilities:
        raise ValueError("this model draws in other styles: its pictures have no true ones")
    if not len(trial.drawn):
        raise ValueError("this model neither draws nor reconstructs pictures")


def collect(parts: Mapping[str, Callable[[], Any]]) -> dict:
    """Return {name: part()} of all parts, and under "refused" why some are missing.

    A part that raises ValueError (mostly: too few pictures) is left out. If all parts do, so does
    this function.
    """
    report: dict[str, Any] = {"refused": {}}
    for name, part in parts.items():
        try:
            report[name] = part()
        except ValueError as error:
            report["refused"][name] = str(error)
    if len(report["refused"]) == len(parts):
        raise ValueError("; ".join(dict.fromkeys(report["refused"].values())))
    return report
