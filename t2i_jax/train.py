"""The only training loop: it knows steps, writers, checkpoints and evaluators, never a family."""

import functools
import math
import signal
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import augmentation, checkpoint, first_stage, optim, parallel, precompute, ranker, state, step
from t2i_jax.convert import language_model
from t2i_jax.data import loader
from t2i_jax.data import source as sources
from t2i_jax.evaluate import score_during
from t2i_jax.families import family as families
from t2i_jax.grid import sheet
from t2i_jax.measures import exhibit, made
from t2i_jax.pipeline import Pipeline, compile_sampler
from t2i_jax.run_folder import open_run
from t2i_jax.writers import Writers


class Stopped(RuntimeError):
    """Training ended before its last step; the message says why and what to do."""


def train(config, workdir) -> Pipeline:
    """Train `config` in the folder `workdir`, or go on with the run that is there; gives the trained pipeline.

    Raises ValueError, before anything is written, if the folder holds a run of another config, data or tokenizer;
    Stopped on SIGTERM or Ctrl-C (after saving), a loss that is not finite, or a disk that takes no more.
    """
    workdir, size, steps = Path(workdir), config.train.batch_size, config.train.steps
    config = first_stage.resolve(config, workdir)
    place = parallel.make(config.parallel)
    family = families.load(config, place.axis_name)
    check_sizes(config, place.devices, families.parts_of_batch(family))
    if config.first_stage.cache:
        precompute.check(config, family)  # before anything is fitted or written
    training, validation = (sources.load(config.data, split) for split in ("train", "validation"))
    augment, variants = augmentation.make(config.augment, training)
    optimizers = make_optimizers(config, family)
    tokenizer, frozen = open_run(config, workdir, family, training)
    used_in_drawing = ranker.add_weights(frozen, config, tokenizer)
    columns, cut = loader.tokenise(training, tokenizer, config.text, variants)
    held_out = loader.tokenise(validation, tokenizer, config.text)[0]
    if config.first_stage.cache:
        columns |= precompute.columns(config, family, frozen, training)
        held_out |= precompute.columns(config, family, frozen, validation)
    report_data(training, validation, cut, config.text.length)

    shapes = jax.eval_shape(lambda: loader.make_batch(training, columns, np.zeros(size, np.int64)))
    create = functools.partial(state.create, family, optimizers, shapes, config.seed)
    with checkpoint.open_manager(workdir) as manager:
        current, pending, first = begin(config, manager, create, family.pretrained, place)
        frozen_there = place.put_frozen(frozen)
        update = place.compile(
            step.make_step(
                family,
                optimizers,
                ema_decay=config.ema_decay,
                accumulate=config.train.accumulate,
                axis_name=place.axis_name,
                augment=augment,
            )
        )
        report_model(config, current, place, first)
        plain = family if place.axis_name is None else families.load(config)  # validation and samples are not pmapped
        measure, sampler = jax.jit(step.make_measure(plain)), compile_sampler(plain)
        cadence = (config.train.eval_every, config.train.score_every)
        stop, release = catch_signals()
        writers = Writers(workdir, first, steps, size)
        batches = loader.batches(training, columns, size, config.seed, first, steps)

        def pipeline_of(ema, weights=""):
            variables = families.Variables(ema["params"], ema["extra"], used_in_drawing)
            return Pipeline(config, plain, variables, tokenizer, sampler, weights)

        try:
            for number, batch in enumerate(loader.prefetch(batches, place.put_batch), first + 1):
                current, metrics = update(current, frozen_there, batch)
                pending.append(metrics)
                writers.bar.update()
                last, stopping, loss = number == steps, bool(stop), None
                if number % config.train.log_every == 0 or last:
                    pending = finite(pending, number, manager)
                    means = {k: float(np.mean([row[k] for row in pending])) for k in pending[0]}
                    writers.progress(number, means)
                    writers.warn(number, family.warn(means))
                    pending = []
                evaluating, scoring = (every and (number % every == 0 or last) for every in cadence)
                if evaluating or scoring:
                    ema = jax.block_until_ready(place.take(current).ema)
                    with writers.paused():
                        if evaluating:
                            losses = validate(measure, ema, frozen, validation, held_out, config)
                            writers.write(number, losses)
                            loss = sum(v for k, v in losses.items() if k.endswith("/loss")) if family.ranked else None
                            save_grid(pipeline_of(ema), training, validation, number, workdir, writers)
                        if scoring and (scores := score_during(pipeline_of(ema), validation)):
                            writers.write(number, scores)
                            writers.warn(number, family.warn(scores))
                if number % config.train.save_every == 0 or last or stopping:
                    pending = finite(pending, number, manager)
                    writers.flush()
                    checkpoint.save(manager, place.take(current), {"pending": pending}, loss)
                if stopping and not last:
                    checkpoint.wait(manager)
                    raise Stopped(f"{stop[0]}: saved at step {number}; the same command goes on from there")
            checkpoint.wait(manager)
        except OSError as error:
            good = checkpoint.last_whole(workdir)
            raise Stopped(f"{workdir} could not be written ({error}); the last good checkpoint is of step {good}") from error
        finally:
            release()
            writers.close()
    ema = place.take(current).ema
    return pipeline_of(ema, checkpoint.tree_hash(jax.tree.map(np.asarray, ema["params"])))


def make_optimizers(config, family) -> dict:
    """{player: optimizer}. ValueError, before a run is written down, for settings of `config.optim` that do not fit."""
    if config.optim.freeze or config.optim.players:  # else there is nothing to hold against the parameters
        side, text = config.data.resolution, (1, config.text.length)
        image, tokens, mask = (
            jax.ShapeDtypeStruct(*of) for of in (((1, side, side, 3), np.uint8), (text, np.int32), (text, np.bool_))
        )
        batch = {"image": image, "text": {config.text.encoder: {"tokens": tokens, "mask": mask}}}
        optim.check_freeze(config.optim, jax.eval_shape(family.init, jax.random.key(0), batch)[0])
    updates = {player: family.updates.get(player, 1) for player in family.losses}
    return {player: optim.make(config.optim, config.train.steps * times, player) for player, times in updates.items()}


def begin(config, manager, create, pretrained, place: parallel.Parallel):
    """(state on the devices, metrics not yet averaged into a line, step): restored, or from `init_from`, or fresh.

    pretrained: of the family; puts published weights in place of fresh ones.
    """
    restored = checkpoint.restore(manager, jax.eval_shape(create), place.layout)
    if restored:
        for line in restored.passed_over:
            print(f"{line}; it was moved to broken/, and step {restored.step} is used instead")
        return place.put_state(restored.state), restored.notes["pending"], restored.step
    fresh = jax.jit(create)()
    if language_model.is_published(config.init_from):
        start = with_params(fresh, language_model.start(config.init_from, config, fresh.params))
    elif config.init_from:
        start = start_from(config.init_from, fresh)
    else:
        start = with_params(fresh, pretrained(fresh.params))
    return place.put_state(start), [], 0


def start_from(origin, fresh: state.TrainState) -> state.TrainState:
    """`fresh` with the averages of the run `origin`. ValueError, naming the first that differ, if they do not fit."""
    ema, _ = checkpoint.restore_ema(origin)
    there, here = {"params": ema["params"], "extra": ema.get("extra") or {}}, {"params": fresh.params, "extra": fresh.extra}
    have, want = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (there, here))
    name = jax.tree_util.keystr
    wrong = [
        f"{name(path)}: {have[path].shape if path in have else 'missing'}, not {want[path].shape}"
        for path in want
        if path not in have or have[path].shape != want[path].shape
    ]
    wrong += [f"{name(path)}: unknown here" for path in have if path not in want]
    if wrong:
        raise ValueError(f"the weights of init_from = {origin} do not fit this model:\n  " + "\n  ".join(wrong[:5]))
    extra = jax.tree.map(lambda _, x: jnp.array(x), fresh.extra, there["extra"])
    fresh = fresh._replace(extra=extra, ema={**fresh.ema, "extra": jax.tree.map(jnp.copy, extra)})
    return with_params(fresh, jax.tree.map(lambda _, x: x, fresh.params, there["params"]))


def with_params(fresh: state.TrainState, params) -> state.TrainState:
    """`fresh` with other parameters, and with them as their own average."""
    params = jax.tree.map(jnp.array, params)  # a copy: the step gives its state away, and these may be cached elsewhere
    return fresh._replace(params=params, ema={**fresh.ema, "params": jax.tree.map(jnp.copy, params)})


def validate(measure, ema, frozen, source, columns, config) -> dict[str, float]:
    """Mean losses of the averaged weights over the first validation examples, with the same noise every time."""
    count, size = min(len(source.captions), config.train.validation_examples), config.train.batch_size
    sums, rng = {}, jax.random.key(0)
    for first in range(0, count, size):
        index = np.arange(first, first + size)
        batch = loader.make_batch(source, columns, np.minimum(index, count - 1))
        weight = (index < count).astype(np.float32)
        for name, value in measure(ema, frozen, batch, jax.random.fold_in(rng, first), weight).items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return {f"validation/{name}": value / count for name, value in sums.items()}


def save_grid(pipe: Pipeline, training, validation, number: int, workdir: Path, writers: Writers) -> None:
    """Examples spread over the training set and a row of validation, as the model draws them (or what it can do with them),
    to grids/STEP.png and TensorBoard.
    """
    half = max(pipe.config.train.grid // 2, 1)
    chosen = [(s, np.arange(0, len(s.captions), max(len(s.captions) // half, 1))[:half]) for s in (training, validation)]
    captions = [source.captions[i] for source, index in chosen for i in index]
    true = np.concatenate([source.read(index) for source, index in chosen])
    page = sheet(*exhibit(pipe, captions, true, made(pipe, captions, true, seed=0)), columns=min(half, len(training.captions)))
    path = workdir / "grids" / f"{number:07d}.png"
    path.parent.mkdir(exist_ok=True)
    page.save(path)
    writers.image("samples", number, np.asarray(page))


def finite(pending: list[dict], number: int, manager) -> list[dict]:
    """The metrics of the last steps as floats; Stopped, naming the step, if one is not finite. Nothing bad is ever saved."""
    rows = [{name: float(value) for name, value in row.items()} for row in jax.device_get(pending)]
    for i, row in enumerate(rows):
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        if bad:
            checkpoint.wait(manager)
            raise Stopped(
                f"{bad[0]} is {row[bad[0]]} at step {number - len(rows) + i + 1}; the last good checkpoint is of step "
                f"{manager.latest_step()}. A smaller optim.learning_rate or optim.clip may help."
            )
    return rows


def catch_signals() -> tuple[list[str], Callable[[], None]]:
    """A list that a first SIGTERM or Ctrl-C fills with its name, and what puts things back; a second one stops at once."""
    stop, before = [], {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number, frame):
        stop.append(signal.Signals(number).name)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def release():
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, note)
    return stop, release


def check_sizes(config, devices: int, updates: int = 1) -> None:
    """ValueError if the batch does not divide over devices, accumulation and the updates of a step."""
    size, parts = config.train.batch_size, config.train.accumulate
    whole = devices * parts * updates
    if size % whole:
        raise ValueError(
            f"train.batch_size {size} does not divide over {devices} devices x train.accumulate {parts}"
            f"{f' x {updates} updates a step' if updates > 1 else ''}: the nearest that does is {-(-size // whole) * whole}"
        )


def report_data(training, validation, cut: int, length: int) -> None:
    """What is trained on, and what a person should know of it."""
    empty = sum(not caption.strip() for caption in training.captions)
    print(f"data: {len(training.captions):,} training and {len(validation.captions):,} validation pictures")
    for note in (*training.notes, *validation.notes):
        print(f"  {note}")
    if len(set(training.captions)) == 1:
        print(f"  all captions are {training.captions[0]!r}: the model learns one class, and nothing of words")
    if empty:
        print(f"  {empty:,} captions are empty: these pictures are learned as unconditional")
    if cut:
        print(f"  {cut:,} captions are longer than text.length = {length} tokens and were cut")


def report_model(config, current, place: parallel.Parallel, first: int) -> None:
    """Parameters, memory, batch and devices, before the first step."""
    whole = place.take(current)
    count = sum(x.size for x in jax.tree.leaves(whole.params))
    held = sum(x.nbytes for x in jax.tree.leaves(whole) if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key))
    kind = jax.devices()[0].device_kind
    print(
        f"model: {config.family}, {count:,} parameters; the state takes {held / 2**20:,.0f} MiB and about "
        f"{count * 4 / 2**20:,.0f} MiB more for gradients, besides activations\n"
        f"batch: {config.train.batch_size} over {jax.device_count()} x {kind} ({config.parallel.mode}), "
        f"steps {first:,} to {config.train.steps:,}",
        flush=True,
    )
