"""Several models under one ruler: trained under the same budget, drawn from the same captions and seeds, in one report."""

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from t2i_jax import config as configs
from t2i_jax import pipeline, report
from t2i_jax.data import source as sources
from t2i_jax.evaluate import evaluate, read_report
from t2i_jax.measures import MEASURES
from t2i_jax.run_folder import config_of, read_run, write_whole
from t2i_jax.train import train

SCORES = 5  # how often a model is scored while it trains, for the curve
BRIEF = 30  # steps from whose last third the time of a step is taken


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
    """Measure run folders and configs ("FILE.py:arg") alike; gives the path of the report (HTML, with Markdown beside it).

    Configs are trained first, in `out/runs`, each for `minutes` of training steps (the number of steps is chosen from the
    measured time of one, so that the learning rate's schedule ends with the budget) or for `pictures` seen. Started again
    with the same arguments, it goes on where it was: the plan, finished steps and finished measurements are kept in `out`.
    measures: names of measures.MEASURES, by default all; others can be added later.
    Raises ValueError if a config has no budget, if the subjects have different data, or if `out` holds another comparison.
    """
    out = Path(out)
    plan = make_plan(subjects, out, minutes, pictures, split, num, seed, overrides)
    entries = []
    for name, chosen in plan["subjects"].items():
        print(f"\n=== {name} ({chosen['subject']})", flush=True)
        workdir = Path(chosen["subject"]) if chosen["steps"] is None else train_one(out, name, chosen, overrides)
        pipe = pipeline.load(workdir, overrides=overrides)
        measured = out / "measured" / name
        if missing := left_to_measure(measured / "evaluation" / split, pipe, measures or tuple(MEASURES)):
            evaluate(pipe, measured, split, plan["captions"], seed, missing)
        entries.append(report.read_entry(name, workdir, measured / "evaluation" / split))
    return report.write(entries, out, plan)


def left_to_measure(folder: Path, pipe: pipeline.Pipeline, measures: Sequence[str]) -> tuple[str, ...]:
    """Those of `measures` that `folder` has no number for: all if the weights are others; what lacked a file is tried again."""
    before = read_report(folder)
    if not before or before["setting"]["weights"] != pipe.weights:
        return tuple(measures)
    settled = before.keys() | {name for name, why in before["not_measured"].items() if "prepare --weights" not in why}
    return tuple(name for name in measures if name not in settled)


def make_plan(subjects, out: Path, minutes, pictures, split, num, seed, overrides) -> dict:
    """What is to be done, in plain data; written to `out/plan.json` once, then read from there."""
    asked = {
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
        plan = json.loads(path.read_text(encoding="utf-8"))
        if changed := [key for key in asked if plan[key] != asked[key]]:
            key = changed[0]
            raise ValueError(f"{out} holds another comparison ({key}: {plan[key]!r}, now {asked[key]!r}); name another --out")
        return plan
    chosen, data, captions, extractor = {}, {}, 0, ""
    for subject in subjects:
        config = _config_of(subject, overrides)
        name = _free_name(subject, chosen)
        data[name] = sources.load(config.data, split).fingerprint
        first = next(iter(data))
        if data[name] != data[first]:
            raise ValueError(f"{name} and {first} have different data, so one table would not compare them")
        captions = captions or num or config.evaluate.num
        extractor = extractor or config.evaluate.extractor
        if config.evaluate.extractor != extractor:
            raise ValueError(f"{name} has another evaluate.extractor; set one for all with --config.evaluate.extractor=NAME")
        steps = None if _is_run(subject) else steps_within(config, out / f"trial-{name}", minutes, pictures)
        chosen[name] = {"subject": str(subject), "steps": steps}
    plan = {**asked, "captions": captions, "subjects": chosen}
    out.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(plan, indent=1))
    return plan


def steps_within(config, scratch: Path, minutes: float, pictures: int) -> int:
    """The training steps of a config that fit into the budget. ValueError unless exactly one budget is given.

    How long a step takes is seen by training for a moment in the folder `scratch`, which is removed again.
    """
    if bool(minutes) == bool(pictures):
        raise ValueError("configs are trained under one budget: give --minutes=M or --pictures=N")
    if minutes:
        print(f"measuring a training step of {scratch.name}", flush=True)
        brief = configs.from_json(configs.to_json(config))
        with brief.unlocked():
            brief.train.update({"steps": BRIEF, "log_every": BRIEF // 3, "score_every": 0, "validation_examples": 1, "grid": 2})
        shutil.rmtree(scratch, ignore_errors=True)
        train(brief, scratch)
        lines = (scratch / "timing.jsonl").read_text(encoding="utf-8").splitlines()
        shutil.rmtree(scratch)
        pictures = minutes * 60 * json.loads(lines[-1])["images_per_second"]
    return max(int(pictures / config.train.batch_size), 1)


def train_one(out: Path, name: str, chosen: dict, overrides) -> Path:
    """Train a subject, or go on; gives its run folder."""
    workdir, steps = out / "runs" / name, chosen["steps"]
    config = _config_of(chosen["subject"], overrides)
    with config.unlocked():
        every = max(steps // SCORES, 1)
        config.train.update({"steps": steps, "score_every": every, "eval_every": every, "save_every": every})
    train(config, workdir)
    return workdir


def _is_run(subject) -> bool:
    return (Path(subject) / "run.json").is_file()


def _config_of(subject, overrides):
    if _is_run(subject):
        config = config_of(read_run(subject))
        configs.override(config, overrides)
        return config
    if Path(subject).is_dir():
        raise ValueError(f"{subject} is neither a run folder (it has no run.json) nor a config FILE.py[:arg]")
    return configs.load(str(subject), overrides)


def _free_name(subject, taken) -> str:
    """ "configs/shapes_flow.py:unet" -> "shapes_flow-unet"; a second of the same name gets "-2"."""
    file, _, arg = str(subject).rstrip("/").partition(":")
    name = "-".join(filter(None, (Path(file).name.removesuffix(".py"), arg)))
    names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    return next(name for name in names if name not in taken)
