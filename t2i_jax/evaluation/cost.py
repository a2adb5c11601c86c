"""What a model costs: weights, FLOPs, memory and time, as numbers with the unit in their names."""

import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from t2i_jax.core import state
from t2i_jax.core.family import Variables, get_ability
from t2i_jax.evaluation.flops import count_flops
from t2i_jax.families.load import load_family
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.encoder import make_encoder
from t2i_jax.training import optimizer, parallel, step
from t2i_jax.training.needs import peak_bytes

# Costs are measured with this caption: they do not depend on the words.
CAPTION = "a large blue star above a small white ring"


def measure_costs(pipe, steps: int = 10, max_batch: int = 64) -> dict:
    """Return all costs of a pipeline in plain data: the results of the functions below.

    steps: training steps of `train_cost`.   max_batch: of `draw_cost`, if the model draws.
    Trains a copy of the model on random pictures, so the device needs the memory of a training run.
    """
    batch = random_batch(pipe)
    report = {
        "device_kind": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        **weight_sizes(pipe.variables),
        **train_flops(pipe, batch),
        **train_cost(pipe, batch, steps),
    }
    if "sample" in pipe.family.abilities:
        report |= {**draw_flops(pipe), **draw_cost(pipe, max_batch)}
    return report


def weight_sizes(variables: Variables) -> dict:
    """Return the numbers of trained and of frozen parameters (floats), and the bytes of both.

    Bytes are those on disk, uncompressed. weights_bytes is of the averaged weights with `extra`,
    which training changes too; frozen_bytes is needed besides.
    """

    def count(tree):
        return sum(x.size for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating))

    def size(tree):
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))

    return {
        "trained_parameters": count(variables.params),
        "frozen_parameters": count(variables.frozen),
        "weights_bytes": size((variables.params, variables.extra)),
        "frozen_bytes": size(variables.frozen),
    }


def train_flops(pipe, batch) -> dict:
    """Return the FLOPs of a training step on `batch`, optimizer included. Nothing is computed."""
    create, update = make_training(pipe, batch)
    shapes = jax.eval_shape(create, pipe.variables)
    total = count_flops(update, shapes, pipe.variables.frozen, batch)
    return {"train_step_flops": total, "train_flops_per_picture": total / len(batch["image"])}


def draw_flops(pipe) -> dict:
    """Return the FLOPs of one picture drawn alone, guidance included. Nothing is computed.

    The settings are those of `config.sample`.
    """
    text, _ = tokenizers.encode(pipe.tokenizer, [CAPTION], pipe.config.text.length)
    inputs = {"text": {pipe.config.text.encoder: text}}
    keys = jax.random.split(jax.random.key(0), 1)
    settings = {k: v for k, v in pipe.settings({}).items() if k not in pipe.family.texts}
    sample = functools.partial(get_ability(pipe.family, "sample"), **settings)
    return {"draw_flops_per_picture": count_flops(sample, pipe.variables, inputs, keys)}


def train_cost(pipe, batch, steps: int = 10) -> dict:
    """Return memory and speed of the compiled training step over all devices, under `jit`.

    The batch is on the devices already, and the state is donated, as in the training loop.
    train_peak_bytes: of one device, see `peak_bytes`. device_peak_bytes: the most in use since the
    process began, as the device counts it; left out where it does not (CPU).
    The time is the median of `steps` steps after two others.
    """
    place = parallel.make(ConfigDict({**pipe.config.parallel, "mode": "jit"}))
    create, update = make_training(pipe, batch)
    current = place.put_state(jax.jit(create)(pipe.variables))
    frozen, resident = place.put_frozen(pipe.variables.frozen), place.put_batch(batch)
    compiled = place.compile(update).lower(current, frozen, resident).compile()
    seconds = []
    for _ in range(2 + steps):
        start = time.perf_counter()
        current, _ = jax.block_until_ready(compiled(current, frozen, resident))
        seconds.append(time.perf_counter() - start)
    median, count = statistics.median(seconds[2:]), len(batch["image"])
    report = {
        "train_batch": count,
        "train_step_seconds": median,
        "train_pictures_per_second": count / median,
        "train_peak_bytes": peak_bytes(compiled),
    }
    stats = [device.memory_stats() for device in jax.local_devices()]
    if all(stats):
        report["device_peak_bytes"] = max(each["peak_bytes_in_use"] for each in stats)
    return report


def draw_cost(pipe, max_batch: int = 64) -> dict:
    """Return the latency from captions to pictures on the host, at batches of 1, 2, 4, ...

    They go up to `max_batch`, or the last that fits in memory. Times are medians of three, without
    compiling, with the settings of `config.sample`.
    draw_seconds is {"batch": seconds for the whole batch}. The best batch is the one with the most
    pictures a second.
    """
    if max_batch < 1:
        raise ValueError(f"the largest batch to draw is {max_batch}: it has to be at least 1")
    seconds = {}
    for size in (1 << power for power in range(max_batch.bit_length())):
        try:
            seconds[size] = _median_seconds(
                lambda size=size: pipe.draw_rows([CAPTION] * size, np.arange(size), 0)
            )
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or not seconds:
                raise
            break
    best = min(seconds, key=lambda size: seconds[size] / size)
    return {
        # JSON has no other keys than strings.
        "draw_seconds": {str(size): second for size, second in seconds.items()},
        "draw_latency_seconds": seconds[1],
        "draw_best_batch": best,
        "draw_seconds_per_picture_at_best_batch": seconds[best] / best,
        "draw_pictures_per_second_at_best_batch": best / seconds[best],
    }


def random_batch(pipe) -> dict:
    """Return a training batch of random pictures, all with CAPTION, of the config's sizes."""
    config = pipe.config
    size, side = config.train.batch_size, config.data.resolution
    tokens, _ = tokenizers.encode(pipe.tokenizer, [CAPTION] * size, config.text.length)
    # Not always arrays, but always something that takes indices (runs/columns.py).
    columns = {config.text.encoder: make_encoder(config.text).precompute(tokens)}
    image = np.random.default_rng(0).integers(0, 256, (size, side, side, 3), np.uint8)
    return {
        "image": image,
        "image_b": image[::-1],  # for a family that learns from two sets
        "text": jax.tree.map(lambda x: x[np.arange(size)], columns),
        "index": np.arange(size, dtype=np.int32),
    }


def make_training(pipe, batch) -> tuple[Callable, Callable]:
    """Return (create, update) to go on training a pipeline.

    create: (variables) -> a state in memory of its own.   update: the training step.
    """
    config, family = pipe.config, load_family(pipe.config)
    optimizers = {
        player: optimizer.make(config.optim, config.train.steps, player) for player in family.losses
    }
    update = step.make_step(
        family, optimizers, ema_decay=config.ema_decay, accumulate=config.train.accumulate
    )

    def create(variables):
        # A copy: the step donates its state.
        trained = jax.tree.map(jnp.copy, (variables.params, variables.extra))
        started = family._replace(init=lambda *_: trained)
        return state.create(started, optimizers, batch, config.seed)

    return create, update


def _median_seconds(f: Callable, times: int = 3) -> float:
    f()  # compiles
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
