"""The mesh of devices, and which part of each array a device holds.

The axes "data" and "fsdp" split the batch. "fsdp" and "tensor" split the state, "tensor" so that
its devices share the work of each block.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from t2i_jax.models.mesh_axes import AXES, BATCH_AXES, split_dimension

SMALLEST = 4096  # elements: splitting a smaller array saves nothing


def make_mesh(fsdp: int = 1, tensor: int = 1, devices=None) -> Mesh:
    """Return the devices as a mesh with AXES.

    Neighbours share "tensor", then "fsdp": these exchange most. Of several slices of a pod, each
    holds whole copies of the state, because the network between slices is slow.
    Raises ValueError if fsdp * tensor does not divide the devices, or those of a slice.
    """
    devices = list(devices or jax.devices())
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    copy, available = fsdp * tensor, len(devices) // slices
    if available % copy:
        fitting = ", ".join(str(n) for n in range(1, available + 1) if available % n == 0)
        where = "of each slice" if slices > 1 else "there are"
        raise ValueError(
            f"parallel.fsdp = {fsdp} times parallel.tensor = {tensor} does not divide the "
            f"{available} devices {where}: the product can be {fitting}"
        )
    return Mesh(arrange(devices, (len(devices) // copy, fsdp, tensor), slices), AXES)


def arrange(devices: list, shape: tuple[int, int, int], slices: int) -> np.ndarray:
    """Return the devices as an array of `shape`, with fast connections along the last axes."""
    if slices > 1:
        inside = (shape[0] // slices, *shape[1:])
        return mesh_utils.create_hybrid_device_mesh(inside, (slices, 1, 1), devices)
    if devices[0].platform == "tpu":
        return mesh_utils.create_device_mesh(shape, devices)
    return np.asarray(devices).reshape(shape)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays with a row for each example."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def state_shardings(tree, mesh: Mesh):
    """Return the sharding of each array of a state."""

    def sharding(path, x):
        names = tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
        return NamedSharding(mesh, partition(names, x.shape, mesh.shape))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def partition(
    path: tuple[str, ...], shape: Sequence[int], ways: Mapping[str, int]
) -> PartitionSpec:
    """Return how an array of the state is split.

    "tensor" splits what `split_dimension` says, and "fsdp" the longest other dimension that it
    divides. What "tensor" does not split so, both split as if they were one axis. Small arrays, and
    those of which no dimension divides, are copied to every device.
    path: names down to the array.   ways: {axis: number of devices}.
    """
    axes: list[str | tuple[str, ...] | None] = [None] * len(shape)
    split = split_dimension(path, len(shape))
    if ways["tensor"] > 1 and split is not None and shape[split] % ways["tensor"] == 0:
        axes[split] = "tensor"
    rest = tuple(axis for axis in ("fsdp", "tensor") if ways[axis] > 1 and axis not in axes)
    count = math.prod(ways[axis] for axis in rest)
    free = [d for d, n in enumerate(shape) if axes[d] is None and n % count == 0]
    if rest and free and math.prod(shape) >= SMALLEST:
        axes[max(free, key=lambda d: shape[d])] = rest[0] if len(rest) == 1 else rest
    while axes and axes[-1] is None:  # as JAX writes it: the step returns what it takes
        axes.pop()
    return PartitionSpec(*axes)
