"""FLOPs of a function, counted in its traced program: the same on every device.

They are those of matrix products and convolutions, two for a multiply-add (papers often print
multiply-adds: DiT-S/2 of arXiv 2212.09748 has 6.06 G of these and 12.1 GFLOP here). XLA's own
figure (`compiled.cost_analysis()["flops"]`) agrees on programs without loops, but for a few percent
of elementwise operations. It counts the body of a loop once, however often it runs, and samplers
are loops.
"""

import math
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters.partial_eval import dce_jaxpr


def count_flops(f: Callable, *args) -> int:
    """Return the FLOPs of f(*args). Nothing is computed.

    args: trees of arrays or of `jax.ShapeDtypeStruct`s.
    A scan counts as often as it runs, and recomputation (remat) each time. Of the branches of a
    `cond`, the most expensive counts. What no output needs does not count.
    Raises ValueError for products in a while loop, whose trips are known only when it runs, and for
    what hides its products (Pallas kernels, shard_map).
    """
    closed = jax.make_jaxpr(f)(*args)
    needed, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return _count(needed)


def _count(jaxpr: Jaxpr) -> int:
    return sum(map(_count_equation, jaxpr.eqns))


def _count_equation(eqn) -> int:
    name, inner = eqn.primitive.name, [_count(jaxpr) for jaxpr in _inner(eqn.params)]
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        depth = math.prod(eqn.invars[0].aval.shape[d] for d in contracted)
        return 2 * depth * math.prod(eqn.outvars[0].aval.shape)
    if name == "conv_general_dilated":
        return _count_convolution(eqn)
    if name == "scan":
        return eqn.params["length"] * inner[0]
    if name == "cond":
        return max(inner)
    if name == "while" and any(inner):
        raise ValueError(
            "a while loop multiplies matrices, and how often is known only when it runs: give it a "
            "fixed count"
        )
    if name in ("shard_map", "pallas_call"):
        raise ValueError(f"the FLOPs inside {name} cannot be counted")
    return sum(inner)


def _count_convolution(eqn) -> int:
    """Count a convolution without products with the zeros of padding and dilation, as XLA does."""
    (_, _, *input_axes), (_, kernel_in, *kernel_axes), (out_batch, out_features, *out_axes) = (
        eqn.params["dimension_numbers"]
    )
    lhs, rhs, out = (v.aval.shape for v in (*eqn.invars, eqn.outvars[0]))
    strides, padding = eqn.params["window_strides"], eqn.params["padding"]
    lhs_dilation, rhs_dilation = eqn.params["lhs_dilation"], eqn.params["rhs_dilation"]
    pairs = 1  # of an output position and a kernel element that meets an input
    for axis, (before, _) in enumerate(padding):
        first = np.arange(out[out_axes[axis]])[:, None] * strides[axis] - before
        at = first + np.arange(rhs[kernel_axes[axis]]) * rhs_dilation[axis]
        size = (lhs[input_axes[axis]] - 1) * lhs_dilation[axis] + 1
        pairs *= int(((at >= 0) & (at < size) & (at % lhs_dilation[axis] == 0)).sum())
    return 2 * pairs * out[out_batch] * out[out_features] * rhs[kernel_in]


def _inner(params) -> Iterator[Jaxpr]:
    """Yield the programs inside an equation."""
    for value in params.values():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, ClosedJaxpr | Jaxpr):
                yield each.jaxpr if isinstance(each, ClosedJaxpr) else each
