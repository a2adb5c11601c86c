"""Our train step: the programs of the training loop, on a batch that stays on the device."""

from typing import Any

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
from t2i_jax.runs.prepare import Prepared, prepare_run
from t2i_jax.training import parallel, programs


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
    write_reference(prepared, batch, folder)
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
