"""The axes of the mesh of devices, as networks see them (training/mesh.py builds the mesh).

"data" and "fsdp" split the batch. "tensor" splits the work of a block (arXiv 1909.08053, section
3): the first layer of a pair splits its outputs and the second its inputs, so that each device
computes some heads and some hidden units, and the results are summed once after each pair.
"""

import jax
from jax.sharding import AbstractMesh

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
SPLIT_OUTPUTS = ("query", "key", "value", "mlp_in", "mlp_gate")
SPLIT_INPUTS = ("out", "mlp_out")


def split_dimension(path: tuple[str, ...], dimensions: int) -> int | None:
    """Return the dimension of a weight that "tensor" splits, or None if it splits none.

    path: names down to the weight, such as ("block_0", "mlp_in", "kernel").
    dimensions: of the weight's array.
    """
    layer, weight = path[-2:] if len(path) > 1 else ("", "")
    if layer in SPLIT_OUTPUTS and (weight, dimensions) in (("kernel", 2), ("bias", 1)):
        return dimensions - 1
    if layer in SPLIT_INPUTS and (weight, dimensions) == ("kernel", 2):
        return 0
    return None


def current_mesh() -> AbstractMesh | None:
    """Return the mesh that a step is being traced for, or None outside of one with AXES."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if mesh.axis_names == AXES else None
