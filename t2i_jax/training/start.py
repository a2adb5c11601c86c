"""How training starts: checks before anything is written, the first state, what is printed."""

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.convert.load import find_importer
from t2i_jax.core.family import Family, parameter_shapes, updates_per_step
from t2i_jax.core.state import TrainState
from t2i_jax.core.trees import require_fit
from t2i_jax.data.read_ahead import choose_reader
from t2i_jax.runs import checkpoint
from t2i_jax.runs.prepare import Prepared
from t2i_jax.runs.run_folder import read_variables
from t2i_jax.training import optimizer
from t2i_jax.training.parallel import Parallel, put_array
from t2i_jax.training.privacy import check_private, secret_key


def check_batch_size(config, devices: int, updates: int = 1) -> None:
    """Raise ValueError if the batch does not divide over devices, accumulation and updates."""
    size, parts = config.train.batch_size, config.train.accumulate
    multiple = devices * parts * updates
    if size % multiple:
        by_updates = f" x {updates} updates a step" if updates > 1 else ""
        raise ValueError(
            f"train.batch_size {size} does not divide over {devices} devices x train.accumulate "
            f"{parts}{by_updates}: the nearest that does is {-(-size // multiple) * multiple}"
        )


def check_trainable(config, family: Family, place: Parallel) -> None:
    """Raise ValueError, before a run is written down, for settings that cannot be trained."""
    check_batch_size(config, place.devices, updates_per_step(family))
    choose_reader(config.train.reader)
    shapes = parameter_shapes(config, family)  # a network refuses here what does not fit together
    check_memory(config, shapes)
    make_optimizers(config, family, shapes)
    check_private(config, family)


def check_memory(config, shapes) -> None:
    """Raise ValueError if the least that a step needs is more than all devices have.

    shapes: of the parameters. The state holds them, their average and two of the optimizer, and a
    step their gradient; of the batch only the pictures are counted.
    """
    memory = memory_of_a_device() * jax.device_count()
    state = 5 * 4 * sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
    side, size = config.data.resolution, config.train.batch_size
    pictures = size // config.train.accumulate * side * side * 3 * 4
    for name, needed in (("config.model", state), (f"train.batch_size {size:,}", pictures)):
        if needed > memory:
            raise ValueError(
                f"{name} is too large: a step needs more than {needed / 2**30:,.0f} GiB of memory, "
                f"and there are {memory / 2**30:,.0f} GiB"
            )


def memory_of_a_device() -> int:
    """Return the bytes that each device can use; CPU devices share the memory of the machine."""
    devices = jax.local_devices()
    if jax.default_backend() == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(devices)
    return min((device.memory_stats() or {}).get("bytes_limit", 2**63) for device in devices)


def make_optimizers(config, family: Family, shapes=None) -> dict:
    """Return {player: optimizer}. Raises ValueError for settings of `config.optim` that fail.

    shapes: of the parameters, if they are known.
    """
    if config.optim.freeze or config.optim.players:
        optimizer.check_freeze(config.optim, shapes or parameter_shapes(config, family))
    steps = {player: config.train.steps * family.updates.get(player, 1) for player in family.losses}
    return {player: optimizer.make(config.optim, count, player) for player, count in steps.items()}


class Begun(NamedTuple):
    """Where training goes on from.

    state: on the devices.
    pending: metrics of steps that are not averaged into a line yet.
    evaluated: whether nothing is left to evaluate at `step`.
    loss: that of the last line of metrics, or None.
    left_out: how many batches were left out because of spikes of the loss.
    """

    state: Any
    pending: list[dict[str, float]]
    step: int
    evaluated: bool
    loss: float | None = None
    left_out: int = 0


def begin(prepared: Prepared, manager, create: Callable, place: Parallel) -> Begun:
    """Return the state to start from.

    It is restored from the newest checkpoint, or started from `init_from`, or fresh.
    create: () -> a fresh state, fit for jit.
    """
    shapes = jax.eval_shape(create)
    restored = checkpoint.restore(manager, shapes, place.layout)
    if restored:
        for line in restored.passed_over:
            print(f"{line}; it was moved to broken/, and step {restored.step} is used instead")
        state, notes = place.put_state(restored.state), restored.notes
        spikes = (notes.get("loss"), notes.get("left_out", 0))
        return Begun(state, notes["pending"], restored.step, restored.evaluated, *spikes)
    # Each device computes its own part, so a model may be larger than the memory of one.
    parts = jax.tree.map(lambda x: x.sharding, place.layout(shapes))
    config, fresh = prepared.config, jax.jit(create, out_shardings=parts)()
    if config.privacy.clip:
        fresh = fresh._replace(rng=secret_key(fresh.rng))
    importer = find_importer(config.init_from)
    if importer:
        start = with_params(fresh, importer.start(config, fresh.params))
    elif config.init_from:
        params, extra, _ = read_variables(config.init_from)
        params = fresh.params if config.lora.rank else params  # an adapter starts as it is
        start = start_from(fresh, params, extra, config.init_from)
    else:
        family, columns = prepared.family, prepared.training.columns
        params = family.from_data(family.pretrained(fresh.params), prepared.frozen, columns)
        start = with_params(fresh, params)
    return Begun(place.put_state(start), [], 0, evaluated=True)


def start_from(fresh: TrainState, params, extra, origin: str) -> TrainState:
    """Return `fresh` with the parameters and the untrained state of the run `origin`.

    Raises ValueError, naming the first that differ, if they do not fit.
    """
    there = {"params": params, "extra": extra}
    here = {"params": fresh.params, "extra": fresh.extra}
    require_fit(there, here, f"the weights of init_from = {origin} do not fit this model")
    extra, average = (
        jax.tree.map(
            lambda x, new: put_array(np.array(new), x.sharding), fresh.extra, there["extra"]
        )
        for _ in range(2)
    )
    fresh = fresh._replace(extra=extra, ema={**fresh.ema, "extra": average})
    return with_params(fresh, jax.tree.map(lambda _, x: x, fresh.params, there["params"]))


def with_params(fresh: TrainState, params) -> TrainState:
    """Return `fresh` with other parameters, and with these as their own average."""

    def put(new, old):
        # A copy: the step gives its state away, and these may be cached elsewhere.
        return jnp.copy(old) if new is old else put_array(np.array(new), old.sharding)

    params, average = (jax.tree.map(put, params, fresh.params) for _ in range(2))
    return fresh._replace(params=params, ema={**fresh.ema, "params": average})


def report_data(prepared: Prepared) -> None:
    """Print what is trained on, and what the user should know of it."""
    training, validation = prepared.training.source, prepared.validation.source
    empty = sum(not caption.strip() for caption in training.captions)
    print(
        f"data: {len(training.captions):,} training and {len(validation.captions):,} validation "
        "pictures"
    )
    for note in (*training.notes, *validation.notes):
        print(f"  {note}")
    if len(set(training.captions)) == 1:
        print(
            f"  all captions are {training.captions[0]!r}: the model learns one class, and no words"
        )
    if empty:
        print(f"  {empty:,} captions are empty: these pictures are learned as unconditional")
    if cut := prepared.captions_cut:
        length = prepared.config.text.length
        print(f"  {cut:,} captions are longer than text.length = {length} tokens and were cut")
    asked = prepared.config.train.reader
    if asked == "auto" and choose_reader(asked) == "threads":
        print("  TensorFlow is not installed: threads read the same batches ahead (train.reader)")


def report_model(config, state: TrainState, first: int) -> None:
    """Print parameters, memory, batch and devices, before the first step.

    state: as a plain tree (`Parallel.take`).   first: the step that training goes on from.
    """
    count = sum(x.size for x in jax.tree.leaves(state.params))
    held = sum(
        x.nbytes for x in jax.tree.leaves(state) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    )
    kind = jax.devices()[0].device_kind
    print(
        f"model: {config.family}, {count:,} parameters; the state takes {held / 2**20:,.0f} MiB "
        f"and about {count * 4 / 2**20:,.0f} MiB more for gradients, besides activations\n"
        f"batch: {config.train.batch_size} over {jax.device_count()} x {kind} "
        f"({config.parallel.mode}), steps {first:,} to {config.train.steps:,}",
        flush=True,
    )
