"""Our train step: the programs of the training loop, on a batch that stays on the device."""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.benchmark import ceiling, reference
from t2i_jax.benchmark.ours.outputs import OUTPUTS
from t2i_jax.benchmark.rows import Row
from t2i_jax.benchmark.side import Side
from t2i_jax.core.compile_cache import keep_compiled_programs
from t2i_jax.data import loader
from t2i_jax.evaluation.flops import count_flops
from t2i_jax.runs.prepare import Prepared, prepare_run
from t2i_jax.training import parallel, programs

NOISE = 0.05  # added to fresh weights, many of which are zero


def prepare(row: Row, folder, argument: str = "") -> Side:
    """Return the side of one train step; write the reference for a twin to `folder`."""
    del argument
    keep_compiled_programs()
    prepared = prepare_run(row.config(), folder / "run")
    place = parallel.make(prepared.config.parallel)
    made = programs.make_programs(prepared, place)
    flops = count_flops(made.update, *programs.step_shapes(made, prepared, place))
    update = programs.compile_step(made, prepared, place)
    created, batch = made.create(), first_batch(prepared)
    if row.twin:
        write_reference(prepared, created, batch, folder)
    parameters = sum(x.size for x in jax.tree.leaves(created.params))
    current, frozen = place.put_state(created), place.put_frozen(prepared.frozen)
    resident = place.put_batch(batch)

    def step():
        nonlocal current
        current, metrics = update(current, frozen, resident)
        jax.block_until_ready((current, metrics))

    info = {
        "parameters": parameters,
        "flops": flops,
        "pictures": len(batch["index"]),
        "version": f"JAX {jax.__version__}",
    }
    return Side(step, make_product(), info)


def first_batch(prepared: Prepared) -> dict:
    """Return the first batch of the training data, in its order."""
    index = np.arange(prepared.config.train.batch_size)
    return loader.make_batch(*prepared.training, index)


def write_reference(prepared: Prepared, created, batch: dict, folder) -> None:
    """Write weights, the batch, and the network's output for it.

    created: a fresh state. Its weights are moved a little, so that zeros hide nothing.
    """
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: np.asarray(x + NOISE * rng.normal(size=x.shape), np.float32), created.params
    )
    inputs, output = OUTPUTS[prepared.config.family](prepared, params, created.extra, batch)
    arrays = {
        "params": params,
        "extra": created.extra,
        "frozen": prepared.frozen,
        "batch": batch,
        "inputs": inputs,
        "output": np.asarray(output),
    }
    reference.save(folder, prepared.config.to_dict(), arrays)


def make_product():
    """Return () -> None, a product of two large matrices."""
    multiply = jax.jit(jnp.matmul)
    x = jnp.ones((ceiling.SIZE, ceiling.SIZE), jnp.float32)
    return lambda: multiply(x, x).block_until_ready()
