"""LoRA: low-rank adapters on the kernels of any family (arXiv 2106.09685).

The weights of a trained run are frozen, as the frozen part "base". To each kernel W
[..., inputs, outputs] whose path matches `config.lora.paths` an update is added (equation 3):

    W + scale * down @ up,    down [..., inputs, rank], up [rank, outputs].

Only these two are trained, averaged and saved. `up` starts at zero: training starts from the run.
For a convolution the update is one to `rank` channels, and a 1 x 1 convolution after it.

An adapter is a tree like the parameters, in which {"down", "up"} stands in the place of each
matched kernel, and all others are left out. Whoever draws merges it into the weights.

Adapters of files may have a "magnitude" [outputs] too (DoRA, arXiv 2402.09353, equation 5): the
length of what goes to each output, which the sum above is scaled to.
"""

import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from t2i_jax.core.arguments import regular_expression
from t2i_jax.core.family import Context, Family, Variables, unconstrained


def adapted(family: Family, config) -> Family:
    """Return a family that trains an adapter of `family` by the same losses.

    Its parameters are {player: adapter}; the frozen part "base" has those of `family`. Its
    abilities draw with merged variables (`merged`).
    config: a run's whole config, with the section `lora`.
    """
    settings = config.lora

    def init(rng, batch):
        params, extra = family.init(rng, batch)  # of the parameters, only shapes are used
        return init_adapter(rng, params, settings.rank, settings.paths), extra

    def of_adapter(loss: Callable) -> Callable:
        def adapter_loss(params, ctx: Context):
            def whole(adapter):
                return merge(ctx.frozen["base"], adapter, settings.scale)

            ema = {**ctx.ema, "params": whole(ctx.ema["params"])}
            return loss(whole(params), ctx._replace(ema=ema))

        return adapter_loss

    losses = {player: of_adapter(loss) for player, loss in family.losses.items()}
    return family._replace(init=init, losses=losses, constrain=unconstrained)


def init_adapter(rng: jax.Array, params: Any, rank: int, pattern: str) -> dict[str, Any]:
    """Return a fresh adapter, which changes nothing yet.

    params: {player: tree} of arrays or shapes. A player without a matched kernel gets {}.
    pattern: a regular expression, searched in paths such as "model/net/conv_in/kernel". Vectors
        are never matched.
    Raises ValueError, listing some paths, if it matches no matrix, or if it is no regular
    expression.
    """
    expression = regular_expression("lora.paths", pattern)
    flat: Any = flatten_dict(params, sep="/")
    matrices = {path: x for path, x in flat.items() if x.ndim >= 2}
    factors: dict[str, Any] = {}
    for path, kernel in matrices.items():
        if not expression.search(path):
            continue
        *inputs, outputs = kernel.shape
        key = jax.random.fold_in(rng, zlib.crc32(path.encode()))
        down = jax.random.normal(key, (*inputs, rank), kernel.dtype) * math.prod(inputs) ** -0.5
        factors[f"{path}/down"] = down
        factors[f"{path}/up"] = jnp.zeros((rank, outputs), kernel.dtype)
    if not factors:
        some = ", ".join([*matrices][:: max(len(matrices) // 8, 1)])
        raise ValueError(f"lora.paths = {pattern!r} matches no kernel; some paths: {some}")
    return {player: {} for player in params} | unflatten_dict(factors, sep="/")


def merge(params: Any, adapter: Any, scale: Any) -> Any:
    """Return `params` with `scale` times the update of `adapter` added.

    params: nested dicts of arrays. adapter: the same, with factors in the place of some arrays.
    Raises ValueError, naming them, for factors that have no place in `params` or do not fit there.
    """
    whole: Any = flatten_dict(params, keep_empty_nodes=True)
    factors: Any = flatten_dict(adapter)
    for path in {path[:-1] for path in factors}:
        down, up, kernel = factors[*path, "down"], factors[*path, "up"], whole.get(path)
        shape = (*down.shape[:-1], up.shape[-1])
        if kernel is None or kernel.shape != shape:
            found = "no such kernel" if kernel is None else f"{[*kernel.shape]}"
            raise ValueError(
                f"the adapter is of another model: {'/'.join(path)} is {found} here, and "
                f"{[*shape]} in the adapter"
            )
        update = jnp.tensordot(down, up, 1)
        if (magnitude := factors.get((*path, "magnitude"))) is not None:
            summed = kernel + update
            lengths = jnp.sqrt((summed**2).sum(axis=tuple(range(summed.ndim - 1))))
            update = summed * (magnitude / lengths) - kernel
        whole[path] = (kernel + scale * update).astype(kernel.dtype)
    return unflatten_dict(whole)


def merged(variables: Variables, config) -> Variables:
    """Return the variables of a run with its adapter, if it has one, merged into the base."""
    if "base" not in variables.frozen:
        return variables
    base = variables.frozen["base"]
    frozen: Any = {name: part for name, part in variables.frozen.items() if name != "base"}
    params = merge(base, variables.params, config.lora.scale)
    return Variables(jax.tree.map(jnp.asarray, params), variables.extra, frozen)
