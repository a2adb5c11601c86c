"""Search for good settings: train a config many times, as Optuna proposes.

A sweep file is a Python file that says what is searched (configs/sweeps/shapes.py): METRIC, a name
in metrics.jsonl whose last value counts; DIRECTION, "maximize" or "minimize"; and suggest(trial),
which returns the settings of a trial, {field of the config: value}, from `trial.suggest_float` and
the like.

Each trial is a run of its own, in `trials/` of the sweep's folder, and `study.db` there (SQLite) is
Optuna's record. A sweep that was stopped goes on where it was: the trial that was cut off first.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optuna  # pyright: ignore[reportMissingImports]

from t2i_jax import config as configs
from t2i_jax.config.files import run_file
from t2i_jax.core.files import check_folder, write_atomically
from t2i_jax.evaluation.during_training import EVALUATORS
from t2i_jax.evaluation.plots import plot_trials
from t2i_jax.evaluation.report.entry import read_lines
from t2i_jax.runs.lock import lock_folder
from t2i_jax.training import loop
from t2i_jax.training.stopping import Stopped
from t2i_jax.training.trackers import Tracker

DIRECTIONS = ("maximize", "minimize")
TRIALS_BEFORE_PRUNING = 5  # that run to their end, to compare others with
STATES = {"COMPLETE": "finished", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "begun"}


class Space(NamedTuple):
    """A sweep file that was run. path, text: of the file. title: the first line of its docstring.

    metric, direction, suggest: see the docstring of this file.
    """

    path: str
    text: str
    title: str
    metric: str
    direction: str
    suggest: Callable[[Any], dict[str, Any]]


def read_space(path: str) -> Space:
    """Run a sweep file.

    Raises FileNotFoundError if it is missing, and ValueError for one that lacks a part.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no sweep file {path!r}: configs/sweeps/shapes.py is one")
    module = run_file(file)
    metric, direction = (getattr(module, name, None) for name in ("METRIC", "DIRECTION"))
    suggest: Callable[[Any], Any] | None = getattr(module, "suggest", None)
    if not isinstance(metric, str) or not callable(suggest):
        raise ValueError(
            f"{path} is not a sweep file: it must define METRIC, a name in metrics.jsonl, and "
            "suggest(trial)"
        )
    if direction not in DIRECTIONS:
        raise ValueError(f"{path}: DIRECTION is {direction!r}: it must be maximize or minimize")
    title = (module.__doc__ or "").strip().partition("\n")[0]
    text = file.read_text(encoding="utf-8")
    return Space(path, text, title, metric, str(direction), suggest)


def sweep(spec: str, path: str, workdir, trials: int, overrides: Sequence[str] = ()) -> Path:
    """Run trials in the folder `workdir` until it has `trials` of them; return the report's path.

    spec, overrides: the config that every trial starts from, as `config.load` takes them.
    path: of the sweep file.
    A trial whose training ends early, by a loss that is not finite, has failed, and the sweep goes
    on. One that is worse than half of the others at the same step is stopped.
    Raises ValueError for a wrong file, settings that do not fit the config, and a folder that holds
    another sweep or is in use. Raises Stopped on SIGTERM or Ctrl-C; the same command goes on.
    """
    space, folder = read_space(path), check_folder(workdir)
    configs.load(spec, overrides)  # raises for wrong settings before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    with closing(lock_folder(folder)):
        study = open_study(folder, space, {"config": spec, "overrides": list(overrides)})
        while trial := next_trial(study, trials):
            run_trial(study, trial, space, spec, overrides, folder)
            write_report(study, space, spec, overrides, folder)
            jax.clear_caches()  # every trial has programs of its own
    return write_report(study, space, spec, overrides, folder)


def open_study(folder: Path, space: Space, about: dict[str, Any]) -> optuna.Study:
    """Return the study in a folder, or a new one. Raises ValueError if it is of another sweep."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{(folder / 'study.db').absolute()}",
        study_name="sweep",
        direction=optuna.study.StudyDirection[space.direction.upper()],
        load_if_exists=True,
        pruner=pruner(),
    )
    told = {**about, "sweep": space.text}
    before = study.user_attrs.get("about", told)
    if changed := [name for name in told if told[name] != before[name]]:
        raise ValueError(
            f"{folder} holds a sweep with another {' and '.join(changed)}: name another --workdir"
        )
    study.set_user_attr("about", told)
    return study


def pruner() -> optuna.pruners.BasePruner:
    """Return what stops a trial that is worse than the median of the others at the same step."""
    return optuna.pruners.MedianPruner(n_startup_trials=TRIALS_BEFORE_PRUNING)


def next_trial(study: optuna.Study, trials: int) -> optuna.Trial | None:
    """Return the trial that was cut off, or else a new one, or None if there are enough.

    What is proposed follows from the trials before it alone, not from when the sweep was stopped.
    """
    begun = [each for each in study.trials if each.state.name == "RUNNING"]
    number = begun[0].number if begun else len(study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=number)
    if begun:  # Optuna keeps the values that it has proposed for a trial of this identity
        return optuna.Trial(study, begun[0]._trial_id)
    return study.ask() if number < trials else None


def run_trial(
    study: optuna.Study, trial: optuna.Trial, space: Space, spec: str, overrides, folder: Path
) -> None:
    """Train one trial, or go on with it, and tell the study how it ended."""
    try:
        chosen = [f"{name}={value}" for name, value in space.suggest(trial).items()]
    except Exception as error:
        what = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(f"{space.path}: suggest() raises {what}") from error
    print(f"\n=== trial {trial.number}: {', '.join(chosen)}", flush=True)
    config = configs.load(spec, [*overrides, *chosen])
    workdir, began = folder / "trials" / f"{trial.number:03}", time.monotonic()
    trial.set_user_attr("settings", chosen)
    state, value = optuna.trial.TrialState, None
    try:
        loop.train(config, workdir, EVALUATORS, [watcher(trial, space.metric, config.train.steps)])
        ended, value = state.COMPLETE, last_value(workdir, space)
    except optuna.TrialPruned:
        ended = state.PRUNED
    except Stopped as error:
        if error.exit_code != 1:  # a signal
            raise
        print(error)
        ended = state.FAIL
    minutes = trial.user_attrs.get("minutes", 0.0) + (time.monotonic() - began) / 60
    trial.set_user_attr("minutes", minutes)
    study.tell(trial, value, ended)
    shown = "" if value is None else f", {space.metric} {value:.4g}"
    print(f"trial {trial.number}: {STATES[ended.name]}{shown}", flush=True)


def watcher(trial: optuna.Trial, metric: str, steps: int) -> Tracker:
    """Return what tells Optuna the metric of a run in training, and stops one that is not worth it.

    It raises optuna.TrialPruned; not at the last step, where nothing would be saved.
    """
    told = trial.study.trials[trial.number].intermediate_values

    def scalars(step, values):
        if metric not in values:
            return
        if step not in told:  # a resumed run computes some steps again
            trial.report(values[metric], step)
        if step < steps and trial.should_prune():
            raise optuna.TrialPruned

    return Tracker(scalars, lambda *_: None, lambda: None)


def last_value(workdir: Path, space: Space) -> float:
    """Return the last value of the metric in a run's metrics.jsonl.

    Raises ValueError, listing the names there are, if it has none.
    """
    rows = read_lines(workdir / "metrics.jsonl", ("step",))
    if found := [row[space.metric] for row in rows if space.metric in row]:
        return found[-1]
    known = ", ".join(sorted({name for row in rows for name in row} - {"step"}))
    raise ValueError(
        f"{space.path}: METRIC is {space.metric!r}, and the run measures {known} (scores need "
        "--config.train.score_every)"
    )


def write_report(study: optuna.Study, space: Space, spec: str, overrides, folder: Path) -> Path:
    """Write report.md and trials.png: all trials, the best first. Returns the former's path."""
    ended = [each for each in study.trials if each.state.name != "RUNNING"]
    finished: Any = [each for each in ended if each.state.name == "COMPLETE"]
    ranked = sorted(finished, key=lambda each: each.value, reverse=space.direction == "maximize")
    ranked += [each for each in ended if each not in finished]
    names = sorted({name for each in ended for name in each.params})
    rows = [
        f"| {each.number} | {STATES[each.state.name]} | {_number(each.value)} | "
        + "".join(f"{_number(each.params.get(name))} | " for name in names)
        + f"{each.user_attrs.get('minutes', 0.0):.1f} |"
        for each in ranked
    ]
    columns = ["trial", "how it ended", space.metric, *names, "minutes"]
    lines = [f"# {space.title or space.path}", "", f"`{spec}`, {space.direction} `{space.metric}`."]
    if finished:
        settings = [*overrides, *ranked[0].user_attrs["settings"]]
        command = " ".join(f"--config.{setting}" for setting in settings)
        lines += ["", "The best settings:", ""]
        lines += [f"    python main.py train --config={spec} {command}"]
        points = [(each.number, each.value, each.params) for each in finished]
        plot_trials(points, names, space.metric, space.direction, folder / "trials.png")
    lines += ["", "![](trials.png)", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    write_atomically(folder / "report.md", "\n".join([*lines, *rows]) + "\n")
    return folder / "report.md"


def _number(value) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
