"""What the backward pass computes again instead of keeping it in memory (arXiv 1604.06174)."""

from typing import Any

import flax.linen as nn
import jax

# {name: which results inside a block are kept: (primitive, *arrays, **its parameters) -> bool}.
# The input of a block is always kept.
POLICIES = {
    "none": jax.checkpoint_policies.everything_saveable,
    "dots": lambda primitive, *args, **params: (
        primitive.name == "conv_general_dilated"
        or jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *args, **params)
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def recomputed(block: type[nn.Module], remat: str) -> type[Any]:
    """Return a class of blocks with the same parameters and results.

    remat: what its backward pass computes again: "none" for nothing; "dots" for all but products
        with parameters and convolutions, such as attention; "full" for everything.
    Raises ValueError for another one.
    """
    if remat not in POLICIES:
        raise ValueError(f"remat is {remat!r}: it can be {', '.join(POLICIES)}")
    return block if remat == "none" else nn.remat(block, policy=POLICIES[remat])


def with_remat(network: Any, remat: str) -> Any:
    """Return the network with this field `remat`, or itself if it has no such field."""
    return network.clone(remat=remat) if getattr(network, "remat", None) in POLICIES else network
