"""Save a fresh state, or restore the one that is there, on any devices of one or more processes."""

from pathlib import Path

import jax
import numpy as np

from t2i_jax import config as configs
from t2i_jax.core import hosts
from t2i_jax.core.files import fingerprint
from t2i_jax.data import loader
from t2i_jax.runs import checkpoint
from t2i_jax.runs.prepare import prepare_run
from t2i_jax.training import parallel, programs, start

ROOT = Path(__file__).parents[2]
STEP, BATCH = 3, 8


def save_or_restore(workdir, fsdp: int, devices=None) -> dict:
    """Return a hash of the state of step STEP, whether it is split, and the examples that follow.

    devices: those to use; by default all, of all processes.
    """
    overrides = [f"parallel.fsdp={fsdp}", "model.depth=1"]
    config = configs.load(f"{ROOT}/configs/shapes.py:smoke", overrides)
    place = parallel.make(config.parallel, devices)
    prepared = hosts.first_then_others(lambda: prepare_run(config, Path(workdir)))
    create = programs.make_programs(prepared, place).create
    with prepared.lock, checkpoint.open_manager(workdir) as manager:
        begun = start.begin(prepared, manager, create, place)
        state = begun.state
        if begun.step == 0:
            state = state._replace(step=state.step + STEP)
            checkpoint.save(manager, state, {"pending": []})
            checkpoint.wait(manager)
    whole = hosts.local_copy(state._replace(rng=jax.random.key_data(state.rng)))
    source, columns = prepared.training
    rows = place.local_rows(BATCH)
    batches = loader.batches(source, columns, BATCH, config.seed, STEP, STEP + 2, rows)
    return {
        "begun": begun.step,
        "state": fingerprint(*(np.asarray(x).tobytes() for x in jax.tree.leaves(whole))),
        "split": any(not x.is_fully_replicated for x in jax.tree.leaves(state.params)),
        "rows": rows.tolist(),
        "index": [np.asarray(batch["index"]).tolist() for batch in batches],
    }
