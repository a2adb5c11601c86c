"""Measure a model, and write what was measured to its run folder."""

import contextlib
import importlib.metadata
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from t2i_jax.core.files import (
    check_folder,
    complete_files,
    make_folder,
    name_file,
    read_json,
    write_atomically,
)
from t2i_jax.core.source import Source
from t2i_jax.data.load import load_source
from t2i_jax.evaluation.contact_sheet import contact_sheet
from t2i_jax.evaluation.draw import for_display, make_pictures
from t2i_jax.evaluation.measure import Trial, check_names, load_measures, take
from t2i_jax.pipeline import Pipeline
from t2i_jax.runs.bucket import local_folder, upload
from t2i_jax.runs.model_card import write_card
from t2i_jax.runs.rewritten import rewritten
from t2i_jax.runs.run_folder import config_of, is_run, read_run
from t2i_jax.text.expansion import Expansion

CONTACT_SHEET_PICTURES = 24
MAX_PICTURES_KEPT = 64  # in pictures.npz
# It does not apply; weights are missing; there is not enough memory.
NOT_MEASURABLE = (ValueError, FileNotFoundError, jax.errors.JaxRuntimeError)


def evaluate(
    pipe: Pipeline,
    workdir,
    split: str = "test",
    num: int = 0,
    seed: int = 0,
    measures: Sequence[str] = (),
    expand: str | None = None,
) -> dict:
    """Draw one picture for each of the first `num` captions of a split, and measure them.

    A model that does not draw reconstructs the true pictures, if it can.
    num: 0 for `config.evaluate.num`.
    measures: names of measures; by default, those of `usual_measures`.
    expand: what rewrites the captions before they are drawn; see `runs.rewritten`. The pictures are
        measured by the captions as they were.
    Writes metrics.json (with every setting needed to repeat it), grid.png, pictures.npz and plots
    to `workdir/evaluation/SPLIT`, and returns the report of metrics.json. If a report of the same
    setting is there, its other measures are kept. What cannot be measured is listed with the reason
    under "not_measured". Raises ValueError for an unknown measure.
    """
    check_names(measures)
    here = local_folder(workdir)
    folder = check_folder(here / "evaluation" / split)
    read_report(folder)  # before anything is drawn for it
    source = load_source(pipe.config.data, split)
    measures = measures or usual_measures(pipe, source)
    count = min(num or pipe.config.evaluate.num, len(source.captions))
    captions, true = list(source.captions[:count]), source.read(np.arange(count))
    asked = rewritten(pipe.config.data, captions, expand, seed)
    drawn = make_pictures(pipe, [each.prompt for each in asked], true, seed, f"drawing {split}")
    trial = Trial(pipe, split, source, seed, captions, true, drawn)
    report = start_report(trial, folder, told_of(asked))
    for name in measures:
        report["not_measured"].pop(name, None)
        try:
            report[name] = take(load_measures()[name], trial)
        except NOT_MEASURABLE as error:
            report["not_measured"][name] = str(error)
    write_report(report, trial, folder)
    if is_run(workdir):
        write_card(here, pipe.config, pipe.family.abilities, scores_of(here))
    upload(here)
    return report


def scores_of(workdir) -> dict[str, str]:
    """Return {split: summary} of the splits that were evaluated; damaged reports are left out."""
    scores = {}
    for folder in sorted((Path(workdir) / "evaluation").iterdir()):
        with contextlib.suppress(ValueError):
            if report := read_report(folder):
                scores[folder.name] = _scores(report)
    return scores


def usual_measures(pipe: Pipeline, source: Source) -> tuple[str, ...]:
    """Return the measures by which models of such abilities and data are known."""
    return tuple(name for name, each in load_measures().items() if each.usual(pipe, source))


def told_of(asked: Sequence[Expansion]) -> dict:
    """Return what a report says of rewritten captions: {} if they were drawn as they are."""
    models = sorted({each.model for each in asked if each.model})
    failed = sum(bool(each.error) for each in asked)
    return {"expansion": {"models": models, "failed": failed}} if models else {}


def start_report(trial: Trial, folder: Path, more: dict) -> dict:
    """Return the report in `folder`, if it is of the same setting, or else an empty one.

    more: further entries of the setting.
    """
    # Through JSON, as it is read back: tuples become lists.
    plain = json.loads(json.dumps({**setting(trial), **more}))
    before = read_report(folder)
    if before and before["setting"] == plain:
        return before
    return {"setting": plain, "captions": trial.captions[:MAX_PICTURES_KEPT], "not_measured": {}}


def read_report(folder) -> dict | None:
    """Return the report that `evaluate` wrote to `folder`, or None if there is none.

    Raises ValueError, naming the file, if it is damaged.
    """
    path = Path(folder) / "metrics.json"
    if not path.is_file():
        return None
    report = read_json(path)
    if not all(isinstance(report.get(name), dict) for name in ("setting", "not_measured")):
        raise ValueError(f"{path} is damaged: delete it, and all is measured anew")
    return report


def write_report(report: dict, trial: Trial, folder: Path) -> None:
    """Write metrics.json, the contact sheet, some pictures, and the plots of the measures."""
    first, kept = slice(CONTACT_SHEET_PICTURES), slice(MAX_PICTURES_KEPT)
    shown = for_display(trial.pipe, trial.captions[first], trial.true[first], trial.drawn[first])
    with name_file(folder), complete_files(make_folder(folder)) as new:
        contact_sheet(*shown, columns=6).save(new / "grid.png")
        for name, measure in load_measures().items():
            if name in report:
                measure.save(report[name], new)
        np.savez_compressed(new / "pictures.npz", drawn=trial.drawn[kept], true=trial.true[kept])
        write_atomically(new / "metrics.json", json.dumps(report, indent=1, sort_keys=True))


def setting(trial: Trial) -> dict:
    """Return everything needed to repeat an evaluation, in plain data."""
    pipe = trial.pipe
    return {
        "split": trial.split,
        "num": len(trial.captions),
        "seed": trial.seed,
        "data": trial.source.fingerprint,
        "weights": pipe.weights,
        **{ability: dict(settings) for ability, settings in pipe.family.settings.items()},
        "config": pipe.config.to_dict(),
        "device": jax.devices()[0].device_kind,
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("t2i_jax", "jax", "flax", "numpy", "pillow")
        },
    }


def warn_of_other_data(pipe: Pipeline, workdir) -> None:
    """Warn if the data of the run in `workdir` is not what it was trained on."""
    run = read_run(workdir)
    if pipe.config.data != config_of(run).data:
        return  # other data was asked for
    if load_source(pipe.config.data, "train").fingerprint != run["data"]:
        changed = "(other files, captions or versions)"
        warnings.warn(
            f"the data of {workdir} is not what it was in training {changed}", stacklevel=2
        )


def summary(report: dict, workdir) -> str:
    """Return some lines for a person: the scores, what was not measured, and where the rest is."""
    folder = f"{workdir}/evaluation/{report['setting']['split']}"
    where = f"pictures in {folder}/grid.png, all numbers in {folder}/metrics.json"
    return f"{_scores(report)}\n{where}".strip()


def _scores(report: dict) -> str:
    lines, conclusion = [], []
    for name, measure in load_measures().items():
        if name in report:
            more = measure.lines(report[name], report["setting"])
            (conclusion if measure.concludes else lines).extend(more)
    missing = [f"{name} not measured: {why}" for name, why in report["not_measured"].items()]
    return "\n".join([*lines, *missing, *conclusion])
