"""Placing arrays on devices and compiling a step: `jit` over a mesh, or `pmap`.

The numbers are the same under both.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from t2i_jax.training.mesh import batch_sharding, make_mesh, state_shardings

AXIS = "batch"
MODES = ("jit", "pmap")


class Parallel(NamedTuple):
    """One way of running a step on several devices.

    axis_name: for `load_family` and `make_step`; None under jit.
    layout: (shapes of a state) -> the same with shardings: where a state is created, and restored
        from a checkpoint.
    batch_layout: the same of a batch; used under jit alone.
    put_state, put_frozen: (a tree as `layout` says, or on the host) -> the tree where the step
        takes it.
    put_batch: (the rows `local_rows` of a batch) -> the global batch where the step takes it.
    local_rows: (batch size) -> int [N], the rows of a batch that this process's devices need.
    take: (the state that the step returned) -> a plain tree of global arrays, for checkpoints and
        evaluation.
    compile: (step) -> compiled step(state, frozen, batch), which donates the state.
    devices: how many devices share a batch. Those of one "tensor" axis count as one.
    """

    axis_name: str | None
    layout: Callable
    batch_layout: Callable
    put_state: Callable
    put_frozen: Callable
    put_batch: Callable
    local_rows: Callable
    take: Callable
    compile: Callable
    devices: int


def make(config, devices=None) -> Parallel:
    """Return how to run a step under `config.parallel`.

    mode: "jit" or "pmap". fsdp: under jit, so many devices share each copy of the state. tensor:
        under jit, so many devices share each layer of a block.
    devices: those to use; by default all.
    Raises ValueError if the mode is unknown or the devices do not divide.
    """
    if config.mode == "pmap":
        for name in ("fsdp", "tensor"):
            if config[name] != 1:
                raise ValueError(
                    f"parallel.{name} needs parallel.mode = 'jit': pmap keeps a whole copy of the "
                    "state on each device"
                )
        if jax.process_count() > 1:
            raise ValueError(
                "parallel.mode = 'pmap' trains one model for each process: with several, set it to "
                "'jit'"
            )
        return _pmap(devices or jax.local_devices())
    if config.mode == "jit":
        return _jit(make_mesh(config.fsdp, config.tensor, devices))
    raise ValueError(f"parallel.mode = {config.mode!r}: it can be {', '.join(MODES)}")


def _jit(mesh: Mesh) -> Parallel:
    def layout(tree):
        return jax.tree.map(_on, tree, state_shardings(tree, mesh))

    def put_state(tree):
        return jax.tree.map(put_array, tree, state_shardings(tree, mesh))

    def batch_layout(tree):
        return jax.tree.map(lambda x: _on(x, split), tree)

    split, parts = batch_sharding(mesh), mesh.size // mesh.shape["tensor"]

    def local_rows(size):
        ours = split.addressable_devices_indices_map((size,)).values()
        return np.unique(np.concatenate([np.arange(size)[part] for part in ours]))

    def put_batch(batch):
        ours = len(local_rows(parts))

        def put(x):
            x = np.asarray(x)
            size = len(x) // ours * parts
            rows = local_rows(size)

            def part(index):
                first, last, _ = index[0].indices(size)
                begin = np.searchsorted(rows, first)
                return x[begin : begin + last - first]

            return jax.make_array_from_callback((size, *x.shape[1:]), split, part)

        return jax.tree.map(put, batch)

    def compile(step):
        def with_layout(state, frozen, batch):
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                new_state, metrics = step(state, frozen, batch)
            shardings = state_shardings(new_state, mesh)
            return jax.lax.with_sharding_constraint(new_state, shardings), metrics

        return jax.jit(with_layout, donate_argnums=0)

    return Parallel(
        axis_name=None,
        layout=layout,
        batch_layout=batch_layout,
        put_state=put_state,
        put_frozen=put_state,
        put_batch=put_batch,
        local_rows=local_rows,
        take=lambda state: state,
        compile=compile,
        devices=parts,
    )


def _pmap(devices) -> Parallel:
    count = len(devices)
    layout = functools.partial(
        jax.tree.map, lambda x: _on(x, jax.sharding.SingleDeviceSharding(devices[0]))
    )
    # With the axis of the step: a copy with another sharding would have the step compiled twice.
    copy = jax.pmap(lambda _, tree: tree, AXIS, in_axes=(0, None), devices=devices)
    first = jax.jit(lambda tree: jax.tree.map(lambda x: x[0], tree))

    def put_state(tree):
        return copy(np.arange(count), tree)

    def put_batch(batch):
        return jax.tree.map(lambda x: np.asarray(x).reshape(count, -1, *x.shape[1:]), batch)

    def compile(step):
        compiled = jax.pmap(step, AXIS, devices=devices, donate_argnums=0)

        def run(state, frozen, batch):
            state, metrics = compiled(state, frozen, batch)
            return state, {name: value[0] for name, value in metrics.items()}

        return run

    return Parallel(
        axis_name=AXIS,
        layout=layout,
        batch_layout=layout,
        put_state=put_state,
        put_frozen=put_state,
        put_batch=put_batch,
        local_rows=np.arange,
        take=first,
        compile=compile,
        devices=count,
    )


def put_array(x, sharding: jax.sharding.Sharding):
    """Return the array x, a whole one on this host or one that is placed already, as `sharding`."""
    if sharding.is_fully_addressable:
        # Also for an equivalent sharding: of another one, the step would be compiled twice.
        return jax.device_put(x, sharding)
    if isinstance(x, jax.Array) and x.sharding.is_equivalent_to(sharding, x.ndim):
        return x
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def _on(x, sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
