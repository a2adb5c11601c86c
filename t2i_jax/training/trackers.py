"""Programs in which a run is watched while it trains: TensorBoard, Weights & Biases, MLflow.

Each gets the numbers of metrics.jsonl and the contact sheets, and nothing else reads them back. A
resumed run goes on in the same place; what it computes again is not told twice.
"""

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from t2i_jax.core.files import write_atomically
from t2i_jax.core.settings import flatten

IDS = "trackers.json"  # {tracker: its own name of the run}
MAX_PARAMETER = 500  # characters of a setting, for MLflow
# In the run's folder, where MLFLOW_TRACKING_URI is not set.
MLFLOW_STORE, MLFLOW_PICTURES = "mlflow.db", "mlflow"


class Tracker(NamedTuple):
    """A place where a run is watched.

    scalars: (step, {name: number}) -> None.
    image: (name, step, uint8 [H, W, 3]) -> None.
    """

    scalars: Callable[[int, dict[str, float]], None]
    image: Callable[[str, int, np.ndarray], None]
    close: Callable[[], None]


def open_trackers(names: Sequence[str], workdir: Path, step: int, config: dict) -> list[Tracker]:
    """Return the trackers of a run that goes on from `step`. config: as JSON has it.

    Raises RuntimeError, with the command to run, for one whose package is not installed.
    """
    opened = []
    for name in names:
        try:
            opened.append(OPENERS[name](workdir, step, config))
        except ModuleNotFoundError as error:
            for tracker in opened:
                tracker.close()
            raise RuntimeError(
                f"train.trackers: {name} needs {error.name}: pip install 't2i_jax[{name}]'"
            ) from error
    return opened


def open_tensorboard(workdir: Path, step: int, config: dict) -> Tracker:
    """Write to workdir/tensorboard."""
    del config
    writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1, flush_secs=30)

    def scalars(step, values):
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def image(name, step, pixels):
        writer.add_image(name, pixels, step, dataformats="HWC")

    return Tracker(scalars, image, writer.close)


def open_wandb(workdir: Path, step: int, config: dict) -> Tracker:
    """Send to Weights & Biases, as its own variables say (WANDB_MODE=offline, WANDB_PROJECT).

    It drops what is told again after a resume, by the number of the step.
    """
    del step
    import wandb  # pyright: ignore[reportMissingImports]

    name, identity = workdir.absolute().name, kept_id(workdir, "wandb")
    run = wandb.init(
        dir=str(workdir),
        name=name,
        id=identity,  # None: a new one
        resume="allow",
        config=config,
        settings=wandb.Settings(console="off", silent=True),
    )
    keep_id(workdir, "wandb", run.id)

    def image(name, step, pixels):
        run.log({name: wandb.Image(Image.fromarray(pixels))}, step=step)

    return Tracker(lambda step, values: run.log(values, step=step), image, run.finish)


def open_mlflow(workdir: Path, step: int, config: dict) -> Tracker:
    """Write to the server that MLFLOW_TRACKING_URI names, or to a database in the run's folder."""
    import mlflow  # pyright: ignore[reportMissingImports]

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    own = f"sqlite:///{workdir.absolute()}/{MLFLOW_STORE}"
    store = os.environ.get("MLFLOW_TRACKING_URI") or own
    client = mlflow.MlflowClient(store)
    identity = kept_id(workdir, "mlflow")
    if identity is None:
        experiment = client.get_experiment_by_name("t2i_jax")
        place = (workdir.absolute() / MLFLOW_PICTURES).as_uri() if store == own else None
        number = (
            experiment.experiment_id
            if experiment
            else client.create_experiment("t2i_jax", artifact_location=place)
        )
        identity = client.create_run(number, run_name=workdir.absolute().name).info.run_id
        for key, value in flatten(config).items():
            client.log_param(identity, key, str(value)[:MAX_PARAMETER])
        keep_id(workdir, "mlflow", identity)
    known: dict[str, int] = {}  # the last step of each name that is there

    def scalars(step, values):
        for name, value in values.items():
            if name not in known:
                history = client.get_metric_history(identity, name)
                known[name] = max((each.step for each in history), default=-1)
            if step > known[name]:
                client.log_metric(identity, name, value, step=step)
                known[name] = step

    def image(name, step, pixels):
        client.log_image(identity, pixels, key=name, step=step)

    return Tracker(scalars, image, lambda: client.set_terminated(identity))


OPENERS = {"tensorboard": open_tensorboard, "wandb": open_wandb, "mlflow": open_mlflow}


def kept_id(workdir: Path, tracker: str) -> str | None:
    """Return the name that a tracker has for this run, or None if it is new there."""
    path = workdir / IDS
    return json.loads(path.read_text(encoding="utf-8")).get(tracker) if path.is_file() else None


def keep_id(workdir: Path, tracker: str, identity: str) -> None:
    """Keep the name that a tracker has for this run in its folder."""
    path = workdir / IDS
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_atomically(path, json.dumps({**known, tracker: identity}))
