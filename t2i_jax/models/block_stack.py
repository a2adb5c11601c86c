"""A stack of equal blocks, unrolled or as one loop that is compiled once."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.types import AnyArray
from t2i_jax.models.attention import INTERMEDIATES


def apply_blocks(
    parent: nn.Module,
    block: type[Any],
    fields: Sequence[Any],
    depth: int,
    x: Float[AnyArray, "*shape"],
    *inputs: Any,
    scan: bool = False,
) -> Float[Array, "*shape"]:
    """Return x after `depth` blocks: x = block(*fields)(x, *inputs), each with its own parameters.

    Call it in the `__call__` of `parent`: its parameters "block_0", "block_1", ... are those of the
    blocks, with and without `scan`.
    scan: apply the blocks in a loop over their parameters, which are stacked for it. The results
        are equal up to rounding. A block must draw no random numbers: all would draw the same.
    """
    # A loop would not hand on what the blocks show of their attention (models/attention.py).
    if not scan or parent.is_initializing() or parent.is_mutable_collection(INTERMEDIATES):
        for i in range(depth):
            x = block(*fields, name=f"block_{i}")(x, *inputs)
        return jnp.asarray(x)
    each = [parent.variables["params"][f"block_{i}"] for i in range(depth)]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *each)
    layer = block(*fields, parent=None)

    def step(x, params):
        return layer.apply({"params": params}, x, *inputs), None

    return jax.lax.scan(step, x, stacked)[0]
