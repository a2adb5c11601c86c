"""What a model costs: weights, FLOPs, memory and time, as plain numbers with their units in their names.

FLOPs are those of matrix products and convolutions, two a multiply-add (papers often print multiply-adds: DiT-S/2 of
arXiv 2212.09748 has 6.06 G of these and 12.1 GFLOP here). They are counted in the traced program, the same on every
device. XLA's own figure (`compiled.cost_analysis()["flops"]`) agrees on programs without loops, but for a few percent of
elementwise operations; the body of a loop it counts once however often it runs, and samplers are loops.
"""

import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters.partial_eval import dce_jaxpr
from ml_collections import ConfigDict

from t2i_jax import optim, parallel, state, step
from t2i_jax.families import family as families
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.condition import make_encoder

CAPTION = "a large blue star above a small white ring"  # what costs are measured with: time does not depend on the words


def measure(pipe, steps: int = 10, largest: int = 64) -> dict:
    """All costs of a Pipeline in plain data: what the functions below give, `train_cost` over `steps`, `draw_cost` up to
    `largest` if it draws.

    Trains a copy of the model for some steps on made-up pictures, so the device needs the room of a training run.
    """
    batch = made_up_batch(pipe)
    return {
        "device_kind": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        **weights(pipe.variables),
        **train_flops(pipe, batch),
        **train_cost(pipe, batch, steps),
        **({**draw_flops(pipe), **draw_cost(pipe, largest)} if "sample" in pipe.family.abilities else {}),
    }


def lines(report: dict) -> list[str]:
    """The costs of `measure` for a person, a line a subject."""
    mib = {name: report[f"{name}_bytes"] / 2**20 for name in ("weights", "train_peak")}
    said = [
        f"cost, on {report['devices']} x {report['device_kind']}:",
        f"  {report['trained_parameters']:,} parameters trained and {report['frozen_parameters']:,} frozen; "
        f"averaged weights of {mib['weights']:,.1f} MiB",
        f"  training: {report['train_flops_per_picture'] / 1e9:,.3g} GFLOP a picture, "
        f"{report['train_pictures_per_second']:,.3g} pictures/s at a batch of {report['train_batch']}, "
        f"{mib['train_peak']:,.0f} MiB a device",
    ]
    if "draw_flops_per_picture" in report:
        said.append(
            f"  drawing: {report['draw_flops_per_picture'] / 1e9:,.3g} GFLOP a picture, "
            f"{report['draw_latency_seconds']:,.3g} s for one, "
            f"{report['draw_pictures_per_second_at_best_batch']:,.3g} pictures/s at a batch of {report['draw_best_batch']}"
        )
    return said


def weights(variables: families.Variables) -> dict:
    """Numbers of trained and of frozen parameters (floats), and the bytes of both as they lie on disk, uncompressed.

    weights_bytes is the averaged weights (with `extra`, which training changes too); frozen_bytes is needed beside it.
    """

    def floats(tree):
        return sum(x.size for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating))

    def held(tree):
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))

    return {
        "trained_parameters": floats(variables.params),
        "frozen_parameters": floats(variables.frozen),
        "weights_bytes": held((variables.params, variables.extra)),
        "frozen_bytes": held(variables.frozen),
    }


def train_flops(pipe, batch) -> dict:
    """FLOPs of a training step on `batch`, optimizer included, and of that a picture. Nothing is computed."""
    create, update = _training(pipe, batch)
    total = count_flops(update, jax.eval_shape(create, pipe.variables), pipe.variables.frozen, batch)
    return {"train_step_flops": total, "train_flops_per_picture": total / len(batch["image"])}


def draw_flops(pipe) -> dict:
    """FLOPs of one picture drawn alone with the settings of `config.sample`, guidance included. Nothing is computed."""
    text, _ = tokenizers.encode(pipe.tokenizer, [CAPTION], pipe.config.text.length)
    inputs, keys = {"text": {pipe.config.text.encoder: text}}, jax.random.split(jax.random.key(0), 1)
    sample = functools.partial(families.ability(pipe.family, "sample"), **pipe.settings({}))
    return {"draw_flops_per_picture": count_flops(sample, pipe.variables, inputs, keys)}


def train_cost(pipe, batch, steps: int = 10) -> dict:
    """Memory and speed of the compiled training step over all devices, as the loop runs it under `jit`: batch resident,
    state donated.

    train_peak_bytes: see `peak_bytes`, a device. device_peak_bytes: the most in use since the process began, by the
    device's own account; left out where it keeps none (CPU). The time is the median of `steps` steps after two others.
    """
    place = parallel.make(ConfigDict({"mode": "jit", "fsdp": pipe.config.parallel.fsdp}))
    create, update = _training(pipe, batch)
    current, frozen = place.put_state(jax.jit(create)(pipe.variables)), place.put_frozen(pipe.variables.frozen)
    resident = place.put_batch(batch)
    compiled = place.compile(update).lower(current, frozen, resident).compile()
    seconds = []
    for _ in range(2 + steps):
        start = time.perf_counter()
        current, _ = jax.block_until_ready(compiled(current, frozen, resident))
        seconds.append(time.perf_counter() - start)
    second = statistics.median(seconds[2:])
    count = len(batch["image"])
    report = {
        "train_batch": count,
        "train_step_seconds": second,
        "train_pictures_per_second": count / second,
        "train_peak_bytes": peak_bytes(compiled),
    }
    stats = [device.memory_stats() for device in jax.local_devices()]
    if all(stats):
        report["device_peak_bytes"] = max(each["peak_bytes_in_use"] for each in stats)
    return report


def draw_cost(pipe, largest: int = 64) -> dict:
    """Latency from captions to pictures on the host, with the settings of `config.sample`, at batches of 1, 2, 4, ... up to
    `largest` or the last that fits in memory: medians of three, compiling not counted.

    draw_seconds is {"batch": seconds for all of it}; the best batch is the one of most pictures a second.
    """
    if largest < 1:
        raise ValueError(f"the largest batch to draw is {largest}: it has to be at least 1")
    seconds = {}
    for size in (1 << power for power in range(largest.bit_length())):
        try:
            seconds[size] = _median_seconds(lambda size=size: pipe.draw_rows([CAPTION] * size, np.arange(size), 0))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or not seconds:
                raise
            break
    best = min(seconds, key=lambda size: seconds[size] / size)
    return {
        "draw_seconds": {str(size): second for size, second in seconds.items()},  # as JSON has it
        "draw_latency_seconds": seconds[1],
        "draw_best_batch": best,
        "draw_seconds_per_picture_at_best_batch": seconds[best] / best,
        "draw_pictures_per_second_at_best_batch": best / seconds[best],
    }


def peak_bytes(compiled) -> int:
    """Bytes a device needs while a compiled program runs: arguments + outputs + temporaries - what outputs take over."""
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return used - memory.alias_size_in_bytes


def count_flops(f: Callable, *args) -> int:
    """FLOPs of f(*args), where args are trees of arrays or of `jax.ShapeDtypeStruct`s: matrix products and convolutions.

    A scan counts as often as it runs, what is computed again (remat) each time, of the branches of a `cond` the dearest, and
    what no output needs not at all.
    Raises ValueError for products in a while loop, whose trips are known only when it runs, and for what hides its
    products (Pallas kernels, shard_map).
    """
    closed = jax.make_jaxpr(f)(*args)
    return _count(dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))[0])


def made_up_batch(pipe) -> dict:
    """A training batch of random pictures, all with CAPTION, of the sizes that the config says."""
    config = pipe.config
    size, side = config.train.batch_size, config.data.resolution
    tokens, _ = tokenizers.encode(pipe.tokenizer, [CAPTION] * size, config.text.length)
    text = make_encoder(config.text).precompute(tokens)  # whatever takes indices, as in loader.py
    return {
        "image": np.random.default_rng(0).integers(0, 256, (size, side, side, 3), np.uint8),
        "text": jax.tree.map(lambda x: x[np.arange(size)], {config.text.encoder: text}),
        "index": np.arange(size, dtype=np.int32),
    }


def _training(pipe, batch) -> tuple[Callable, Callable]:
    """What makes a state to go on from of a pipeline's variables, all in buffers of its own, and the step that updates it."""
    config, family = pipe.config, families.load(pipe.config)
    optimizers = {player: optim.make(config.optim, config.train.steps, player) for player in family.losses}
    update = step.make_step(family, optimizers, ema_decay=config.ema_decay, accumulate=config.train.accumulate)

    def create(variables):
        trained = jax.tree.map(jnp.copy, (variables.params, variables.extra))  # the step donates them
        return state.create(family._replace(init=lambda *_: trained), optimizers, batch, config.seed)

    return create, update


def _median_seconds(f: Callable, times: int = 3) -> float:
    f()  # compiles
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


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
        raise ValueError("a while loop multiplies matrices, and how often is known only when it runs: give it a fixed count")
    if name in ("shard_map", "pallas_call"):
        raise ValueError(f"the FLOPs inside {name} cannot be counted")
    return sum(inner)


def _count_convolution(eqn) -> int:
    """Products with the zeros of padding and dilation are not counted, as in XLA's figure."""
    (_, _, *left), (_, rhs_in, *kernel), (out_batch, out_features, *out) = eqn.params["dimension_numbers"]
    lhs, rhs, result = (v.aval.shape for v in (*eqn.invars, eqn.outvars[0]))
    strides, padding = eqn.params["window_strides"], eqn.params["padding"]
    spread, dilation = eqn.params["lhs_dilation"], eqn.params["rhs_dilation"]
    pairs = 1  # of an output place and a tap of the kernel that meets an input
    for axis, (before, _) in enumerate(padding):
        at = np.arange(result[out[axis]])[:, None] * strides[axis] + np.arange(rhs[kernel[axis]]) * dilation[axis] - before
        pairs *= int(((at >= 0) & (at < (lhs[left[axis]] - 1) * spread[axis] + 1) & (at % spread[axis] == 0)).sum())
    return 2 * pairs * result[out_batch] * result[out_features] * rhs[rhs_in]


def _inner(params) -> Iterator[Jaxpr]:
    """The programs inside an equation."""
    for value in params.values():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, ClosedJaxpr | Jaxpr):
                yield each.jaxpr if isinstance(each, ClosedJaxpr) else each
