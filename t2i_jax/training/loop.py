"""The only training loop: it knows steps, writers and checkpoints, never a family or a measure."""

import contextlib
import functools
import json
import math
from collections.abc import Generator, Sequence

import jax
import numpy as np

from t2i_jax.core import hosts
from t2i_jax.data import loader
from t2i_jax.pipeline import Pipeline
from t2i_jax.runs import checkpoint
from t2i_jax.runs.bucket import upload
from t2i_jax.runs.prepare import Prepared, prepare_run
from t2i_jax.training import parallel
from t2i_jax.training.assess import assess, due
from t2i_jax.training.needs import report_needs
from t2i_jax.training.privacy import batch_seed, check_budget, make_privacy
from t2i_jax.training.programs import choose_by_size, compile_sizes, make_programs
from t2i_jax.training.session import NO_EVALUATORS, Evaluators, Session
from t2i_jax.training.spikes import Spike, go_back, total_loss
from t2i_jax.training.start import Begun, begin, check_trainable, report_data, report_model
from t2i_jax.training.stopping import Stopped, catch_signals
from t2i_jax.training.trackers import Tracker, open_trackers
from t2i_jax.training.watchdog import Watchdog
from t2i_jax.training.writers import NoWriters, Writers


def train(
    config,
    workdir,
    evaluators: Evaluators = NO_EVALUATORS,
    trackers: Sequence[Tracker] = (),
) -> Pipeline:
    """Train `config` in the folder `workdir`, or go on with the run that is there.

    trackers: where the numbers and pictures go, besides to those of `config.train.trackers`. What
        they raise ends the training.
    Returns the trained pipeline.
    Raises ValueError, before anything is written, for settings that do not fit, and if the folder
    holds a run of another config, data or tokenizer. Raises Stopped on SIGTERM or Ctrl-C (after
    saving), for a loss that is not finite, and when the disk is full.
    """
    place = parallel.make(config.parallel)
    if config.train.matmul_precision != "default":
        jax.config.update("jax_default_matmul_precision", config.train.matmul_precision)
    text = json.dumps(config.to_dict(), sort_keys=True)
    hosts.refuse_differences({"the config": text, "the version of JAX": jax.__version__})
    checks = functools.partial(check_trainable, place=place), check_budget
    prepared = hosts.first_then_others(lambda: prepare_run(config, workdir, *checks))
    hosts.refuse_differences({"the training data": prepared.training.source.fingerprint})
    report_data(prepared)
    with prepared.lock, checkpoint.open_manager(prepared.workdir) as manager:
        programs = make_programs(prepared, place)
        if place.axis_name is None:  # under pmap, the first step compiles
            compiled = compile_sizes(programs, prepared, place)
            report_needs(compiled, prepared)
            programs = programs._replace(update=choose_by_size(compiled))
        start = functools.partial(begin, prepared, manager, programs.create, place)
        begun = start()
        report_model(prepared.config, place.take(begun.state), begun.step)
        stop, release = catch_signals()
        try:
            current = None
            while current is None:
                with (
                    contextlib.closing(open_writers(prepared, begun, trackers)) as writers,
                    contextlib.closing(Watchdog(config.train.hang_s)) as watchdog,
                ):
                    opened = (manager, writers, watchdog)
                    session = Session(prepared, place, evaluators, programs, *opened)
                    try:
                        current = run_steps(session, begun, stop)
                    except Spike as spike:
                        begun = go_back(spike, begun.left_out, manager, start)
        except OSError as error:
            hosts.end_if_another_died(error)
            good = checkpoint.last_complete_step(prepared.workdir)
            raise Stopped(
                f"{workdir} could not be written ({error}); the last good checkpoint is of step "
                f"{good}"
            ) from error
        except (RuntimeError, ValueError) as error:
            hosts.end_if_another_died(error)
            raise
        finally:
            release()
    ema = hosts.local_copy(place.take(current).ema)
    return session.pipeline(ema, named=True)


def open_writers(
    prepared: Prepared, begun: Begun, further: Sequence[Tracker]
) -> Writers | NoWriters:
    """Return the writers of a run, from the step it begins at; in other processes they do nothing.

    further: trackers besides those of the config.
    """
    config, every = prepared.config.to_dict(), prepared.config.train
    if not hosts.is_first():
        return NoWriters()
    trackers = open_trackers(every.trackers, prepared.workdir, begun.step, config)
    about = (begun.step, every.steps, every.batch_size, begun.evaluated)
    return Writers(prepared.workdir, *about, [*trackers, *further])


def run_steps(session: Session, begun: Begun, stop: list[str]):
    """Train from the step that `begun` names to the last, and return the state.

    A step is saved before it is evaluated. If the run ended in between, the evaluation comes first.
    stop: holds the name of a signal as soon as one came.
    Raises Spike if `train.spike` is set and the loss jumps.
    """
    config, place, writers = session.prepared.config, session.place, session.writers
    frozen, every, watchdog = (
        place.put_frozen(session.prepared.frozen),
        config.train,
        session.watchdog,
    )
    current, pending, number, loss = begun.state, begun.pending, begun.step, begun.loss
    privacy = make_privacy(config, len(session.prepared.training.source.captions))

    def keep():
        notes = {"loss": loss, "left_out": begun.left_out}
        notes |= {"privacy": privacy.notes(number)} if privacy else {}
        save(session, current, finite(pending, number, session.manager), notes, number)

    if hosts.any_of(not begun.evaluated):
        assess(session, current, frozen, number, stop)
        if hosts.any_of(bool(stop)):
            leave(session, number, stop)
    with contextlib.closing(read_batches(session, begun)) as batches:
        for number, batch in enumerate(batches, begun.step + 1):
            watchdog.enter(f"step {number}")
            current, metrics = session.programs.update(current, frozen, batch)
            pending.append(metrics)
            writers.bar.update()
            last = number == every.steps
            telling = number % every.log_every == 0 or last
            # Several processes agree once a line: more often would keep the devices waiting.
            stopping = hosts.any_of(bool(stop)) if telling or jax.process_count() == 1 else False
            if telling:
                pending = finite(pending, number, session.manager)
                means = {k: float(np.mean([row[k] for row in pending])) for k in pending[0]}
                before, loss = loss, total_loss(means)
                if every.spike and before is not None and loss > every.spike * abs(before):
                    raise Spike(number, number - len(pending), before, loss)
                means |= {"epsilon": privacy.spent(number)} if privacy else {}
                writers.progress(number, means)
                writers.warn(number, session.prepared.family.warn(means))
                pending = []
            if number % every.save_every == 0 or last or stopping:
                keep()
            if any(due(number, every)) and not stopping:
                assess(session, current, frozen, number, stop)
                if stopping := hosts.any_of(bool(stop)):
                    keep()
            if stopping:
                leave(session, number, stop)
    with watchdog.inside("the last save"):
        checkpoint.wait(session.manager)
    if hosts.any_of(bool(stop)):
        leave(session, every.steps, stop)
    return current


def save(session: Session, current, pending: list[dict], notes: dict, number: int) -> None:
    """Start saving step `number`, unless it is saved already.

    pending: metrics of steps that are not averaged into a line yet.
    notes: what else a resumed run needs to know, plain data.
    """
    whole = session.place.take(current)
    with session.watchdog.inside(f"the save of step {number}"):
        if not session.programs.is_finite(whole):
            raise diverged(f"a weight is not finite after step {number}", session.manager)
        session.writers.flush()
        upload(session.prepared.workdir)
        checkpoint.save(session.manager, whole, {"pending": pending, **notes})


def leave(session: Session, number: int, stop: list[str]) -> None:
    """Raise Stopped once step `number` is saved."""
    checkpoint.wait(session.manager)
    saved = f"saved at step {number}; the same command goes on from there"
    if not stop:
        raise Stopped(f"another process was stopped: {saved}")
    raise Stopped.by(stop[0], saved)


def read_batches(session: Session, begun: Begun) -> Generator:
    """Yield the batches of the steps after `begun`, on the devices."""
    config, (source, columns) = session.prepared.config, session.prepared.training
    size, steps = config.train.batch_size, config.train.steps
    rows = session.place.local_rows(size)
    privacy = make_privacy(config, len(source.captions))
    seed = batch_seed(session.place.take(begun.state.rng)) if privacy else config.seed
    batches = loader.batches(
        source,
        columns,
        size,
        seed,
        begun.step + begun.left_out,
        steps + begun.left_out,
        rows,
        config.train.reader,
        privacy.rate if privacy else 0.0,
    )
    with contextlib.closing(batches):  # an error elsewhere ends the reading too
        yield from loader.prefetch(batches, session.place.put_batch)


def finite(pending: list[dict], number: int, manager) -> list[dict]:
    """Return the metrics of the last steps as floats, so that nothing bad is ever saved.

    Raises Stopped, naming the step, if one is not finite.
    """
    rows = [{name: float(value) for name, value in row.items()} for row in jax.device_get(pending)]
    for i, row in enumerate(rows):
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        if bad:
            step = number - len(rows) + i + 1
            raise diverged(f"{bad[0]} is {row[bad[0]]} at step {step}", manager)
    return rows


def diverged(what: str, manager) -> Stopped:
    """Return the error of a training that diverged. Waits until the last save is on disk."""
    checkpoint.wait(manager)
    return Stopped(
        f"{what}; the last good checkpoint is of step {manager.latest_step()}. A smaller "
        "optim.learning_rate or optim.clip may help."
    )
