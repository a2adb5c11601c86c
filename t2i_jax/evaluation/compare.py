"""Compare several models: the same training budget, captions and seeds, in one report."""

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t2i_jax import config as configs
from t2i_jax import pipeline
from t2i_jax.core.files import check_folder, make_folder, read_json, write_atomically
from t2i_jax.data.load import load_source
from t2i_jax.evaluation.during_training import EVALUATORS
from t2i_jax.evaluation.evaluate import evaluate, read_report, warn_of_other_data
from t2i_jax.evaluation.measure import load_measures
from t2i_jax.evaluation.report.entry import read_entry
from t2i_jax.evaluation.report.write import write_report
from t2i_jax.runs.bucket import local_folder
from t2i_jax.runs.run_folder import CHANGEABLE, config_of, read_run, refuse_trained_settings
from t2i_jax.training.loop import train

SCORES_PER_RUN = 5  # points of each curve
TRIAL_STEPS = 30  # the last third of them tells how long a step takes


def compare(
    subjects: Sequence[str],
    out,
    minutes: float = 0.0,
    pictures: int = 0,
    split: str = "test",
    num: int = 0,
    seed: int = 0,
    overrides: Sequence[str] = (),
    measures: Sequence[str] = (),
) -> Path:
    """Measure run folders and configs ("FILE.py:arg") alike; return the path of the HTML report.

    Configs are trained first, in `out/runs`: each for `minutes` of training steps, or on
    `pictures`. The number of steps follows from the measured time of one, so that the schedule of
    the learning rate ends with the budget.
    Started again with the same arguments, it goes on where it was: the plan, finished steps and
    finished measurements are kept in `out`.
    overrides: of the configs, as "train.batch_size=32". Run folders take those that can be set for
        a trained run; the others are refused if there are only run folders.
    measures: names of measures, by default all; others can be added later.
    Raises ValueError if a config has no budget, if the subjects have different data, or if `out`
    holds another comparison.
    """
    out = check_folder(out)
    plan = make_plan(subjects, out, minutes, pictures, split, num, seed, overrides)
    entries = []
    for name, chosen in plan["subjects"].items():
        print(f"\n=== {name} ({chosen['subject']})", flush=True)
        if chosen["steps"] is None:
            workdir = local_folder(chosen["subject"])
            pipe = pipeline.load(workdir, overrides=overrides_for_runs(subjects, overrides))
            warn_of_other_data(pipe, workdir)
        else:
            workdir = train_subject(out, name, chosen, overrides)
            pipe = pipeline.load(workdir)
        folder = out / "measured" / name
        results = folder / "evaluation" / split
        if missing := left_to_measure(results, pipe, measures or tuple(load_measures())):
            evaluate(pipe, folder, split, plan["captions"], seed, missing)
        entries.append(read_entry(name, workdir, results))
    return write_report(entries, out, plan)


def overrides_for_runs(subjects: Sequence[str], overrides: Sequence[str]) -> Sequence[str]:
    """Return the overrides for the run folders among `subjects`.

    If there are only run folders, these are all, and `pipeline.load` refuses what has no effect.
    """
    if all(map(_is_run, subjects)):
        return overrides
    return [override for override in overrides if override.startswith(CHANGEABLE)]


def left_to_measure(
    folder: Path, pipe: pipeline.Pipeline, measures: Sequence[str]
) -> tuple[str, ...]:
    """Return those of `measures` for which `folder` has no number.

    These are all if the weights are others. What lacked a file is tried again.
    """
    before = read_report(folder)
    if not before or before["setting"]["weights"] != pipe.weights:
        return tuple(measures)
    settled = before.keys() | {
        name for name, why in before["not_measured"].items() if "prepare --weights" not in why
    }
    return tuple(name for name in measures if name not in settled)


def make_plan(subjects, out: Path, minutes, pictures, split, num, seed, overrides) -> dict:
    """Return what is to be done, in plain data, as `out/plan.json` keeps it.

    It is made and written once, and read from there afterwards.
    """
    request = {
        "asked": list(subjects),
        "minutes": minutes,
        "pictures": pictures,
        "split": split,
        "num": num,
        "seed": seed,
        "overrides": list(overrides),
    }
    path = out / "plan.json"
    if path.is_file():
        plan = read_json(path)
        check_same_request(plan, request, out)
        return plan
    of_runs = overrides_for_runs(subjects, overrides)
    configs_of = [_config_of(each, of_runs if _is_run(each) else overrides) for each in subjects]
    check_budget(subjects, minutes, pictures)
    chosen: dict[str, dict[str, Any]] = {}
    first: Any = None  # the config of the first subject
    first_name = first_data = ""
    for subject, config in zip(subjects, configs_of, strict=True):
        name = _free_name(subject, chosen)
        data = load_source(config.data, split).fingerprint
        if first is None:
            first, first_name, first_data = config, name, data
        if data != first_data:
            raise ValueError(
                f"{name} and {first_name} have different data, so one table would not compare them"
            )
        if config.evaluate.extractor != first.evaluate.extractor:
            raise ValueError(
                f"{name} has another evaluate.extractor; set one for all with "
                "--config.evaluate.extractor=NAME"
            )
        trial = out / f"trial-{name}"
        steps = None if _is_run(subject) else steps_within(config, trial, minutes, pictures)
        chosen[name] = {"subject": str(subject), "steps": steps}
    captions = num or (first.evaluate.num if first is not None else 0)
    plan = {**request, "captions": captions, "subjects": chosen}
    make_folder(out)
    write_atomically(path, json.dumps(plan, indent=1))
    return plan


def check_same_request(plan: dict, request: dict, out: Path) -> None:
    """Raise ValueError, naming the first difference, if `plan` was made for another request."""
    for key, value in request.items():
        if key not in plan or "subjects" not in plan:
            raise ValueError(f"{out / 'plan.json'} is damaged: delete it, or name another --out")
        if plan[key] != value:
            raise ValueError(
                f"{out} holds another comparison ({key}: {plan[key]!r}, now {value!r}); name "
                "another --out"
            )


def check_budget(subjects, minutes: float, pictures: int) -> None:
    """Raise ValueError unless there is one budget for configs, and none for run folders alone."""
    if all(map(_is_run, subjects)):
        if minutes or pictures:
            raise ValueError("--minutes and --pictures are for configs: these are all run folders")
    elif bool(minutes) == bool(pictures):
        raise ValueError("configs are trained under one budget: give --minutes=M or --pictures=N")


def steps_within(config, scratch: Path, minutes: float, pictures: int) -> int:
    """Return how many training steps of a config fit into the budget.

    To see how long a step takes, it trains for a moment in the folder `scratch`, which is removed
    again.
    """
    if minutes:
        print(f"measuring a training step of {scratch.name}", flush=True)
        brief: Any = configs.from_json(configs.to_json(config))
        with brief.unlocked():
            brief.train.update(
                {
                    "steps": TRIAL_STEPS,
                    "log_every": TRIAL_STEPS // 3,
                    "score_every": 0,
                    "validation_examples": 1,
                    "grid": 2,
                }
            )
        shutil.rmtree(scratch, ignore_errors=True)
        train(brief, scratch)
        lines = (scratch / "timing.jsonl").read_text(encoding="utf-8").splitlines()
        shutil.rmtree(scratch)
        pictures = minutes * 60 * json.loads(lines[-1])["images_per_second"]
    return max(int(pictures / config.train.batch_size), 1)


def train_subject(out: Path, name: str, chosen: dict, overrides) -> Path:
    """Train a config of the plan, or go on with it, and return its run folder."""
    workdir, steps = out / "runs" / name, chosen["steps"]
    config = _config_of(chosen["subject"], overrides)
    with config.unlocked():
        every = max(steps // SCORES_PER_RUN, 1)
        config.train.update(
            {"steps": steps, "score_every": every, "eval_every": every, "save_every": every}
        )
    train(config, workdir, EVALUATORS)
    return workdir


def _is_run(subject) -> bool:
    return (local_folder(subject) / "run.json").is_file()


def _config_of(subject, overrides) -> Any:
    if _is_run(subject):
        refuse_trained_settings(overrides)
        config = config_of(read_run(subject))
        configs.override(config, overrides)
        return config
    is_path = len(Path(subject).parts) > 1 and ".py" not in str(subject)
    if is_path or Path(subject).is_dir():
        raise ValueError(
            f"{subject} is neither a run folder (it has no run.json; train it first) nor a config "
            "FILE.py[:arg]"
        )
    return configs.load(str(subject), overrides)


def _free_name(subject, taken) -> str:
    """Return a name for a subject that is not in `taken`.

    "configs/shapes_diffusion.py:unet" gives "shapes_diffusion-unet", and the next one of that name
    "shapes_diffusion-unet-2".
    """
    file, _, arg = str(subject).rstrip("/").partition(":")
    name = "-".join(filter(None, (Path(file).name.removesuffix(".py"), arg)))
    names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    return next(name for name in names if name not in taken)
