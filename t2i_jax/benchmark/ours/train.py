"""Our train step: the programs of the training loop, on a batch that stays on the device.

Beside it, what the same step takes with batches from the pipeline, and the pipeline alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.benchmark import ceiling, reference
from t2i_jax.benchmark.ours.outputs import OUTPUTS
from t2i_jax.benchmark.rows import Row
from t2i_jax.benchmark.side import Side
from t2i_jax.core.compile_cache import keep_compiled_programs
from t2i_jax.core.family import parameter_shapes
from t2i_jax.data import loader
from t2i_jax.evaluation.flops import count_flops
from t2i_jax.runs import checkpoint
from t2i_jax.runs.prepare import Prepared, prepare_run
from t2i_jax.training import parallel, programs, start

BATCHES_READ = 100  # many more than are read ahead while other sides are measured


class Training(NamedTuple):
    """A training before its first step, as the loop opens it.

    update: (state, frozen, batch) -> (state, metrics), compiled. Gives the state away.
    flops: of one step.
    """

    prepared: Prepared
    place: parallel.Parallel
    update: Any
    state: Any
    frozen: Any
    flops: int


def prepare(row: Row, folder, argument: str) -> Side:
    """Return the side of one train step; for a row with a twin, write its reference to `folder`.

    argument: "resident" (the batch stays on the device), "pipeline" (each step takes the next
        batch of the loader) or "loader" (the next batch alone, without a step).
    """
    training = open_training(row.config(), folder / f"run-{argument}")
    prepared, place, update, current, frozen, flops = training
    batch = first_batch(prepared)
    if row.twin:
        write_reference(prepared, batch, folder)
    resident, batches = place.put_batch(batch), endless_batches(training)

    def step():
        nonlocal current
        given = resident if argument == "resident" else next(batches)
        current, metrics = update(current, frozen, given)
        jax.block_until_ready((current, metrics))

    def read():
        for _ in range(BATCHES_READ):
            jax.block_until_ready(next(batches))

    info = {
        "parameters": sum(x.size for x in jax.tree.leaves(current.params)),
        "flops": flops,
        "pictures": len(batch["index"]),
    }
    if argument == "loader":
        return Side(read, make_product(), info, BATCHES_READ)
    return Side(step, make_product(), info)


def open_training(config, folder) -> Training:
    """Return the training of a config as a new run in `folder`."""
    keep_compiled_programs()
    prepared = prepare_run(config, folder)
    place = parallel.make(prepared.config.parallel)
    made = programs.make_programs(prepared, place)
    flops = count_flops(made.update, *programs.step_shapes(made, prepared, place))
    update = programs.compile_step(made, prepared, place)
    with checkpoint.open_manager(prepared.workdir) as manager:
        state = start.begin(prepared, manager, made.create, place).state
    return Training(prepared, place, update, state, place.put_frozen(prepared.frozen), flops)


def first_batch(prepared: Prepared) -> dict:
    """Return a batch of the first pictures of the training data."""
    return loader.make_batch(*prepared.training, np.arange(prepared.config.train.batch_size))


def endless_batches(training: Training):
    """Return an iterator over batches on the device, read ahead as in the training loop."""
    config, (source, columns) = training.prepared.config, training.prepared.training
    size, reader = config.train.batch_size, config.train.reader
    rows = training.place.local_rows(size)
    batches = loader.batches(source, columns, size, config.seed, 0, 10**9, rows, reader)
    return loader.prefetch(batches, training.place.put_batch)


def write_reference(prepared: Prepared, batch: dict, folder) -> None:
    """Write random weights, the batch, and the network's output for them."""
    params = random_weights(parameter_shapes(prepared.config, prepared.family))
    inputs, output = OUTPUTS[prepared.config.family](prepared, params, batch)
    arrays = {
        "params": params,
        "frozen": prepared.frozen,
        "batch": batch,
        "inputs": inputs,
        "output": np.asarray(output),
    }
    reference.save(folder, prepared.config.to_dict(), arrays)


def random_weights(shapes) -> Any:
    """Return weights of these shapes without zeros, which would hide a difference.

    Numbers keep their size through each layer: kernels are divided by the square root of the
    number of inputs, and scales of norms are near 1.
    """
    rng = np.random.default_rng(0)

    def draw(path, shape):
        x = rng.normal(size=shape.shape)
        if len(shape.shape) > 1:
            return np.float32(x / np.prod(shape.shape[:-1]) ** 0.5)
        return np.float32((path[-1].key == "scale") + 0.1 * x)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_product():
    """Return () -> None, a product of two large matrices."""
    multiply = jax.jit(jnp.matmul)
    x = jnp.ones((ceiling.SIZE, ceiling.SIZE), jnp.float32)
    return lambda: multiply(x, x).block_until_ready()
