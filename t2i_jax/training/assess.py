"""Evaluations while training: validation losses, contact sheets and scores."""

from collections.abc import Callable

import jax
import numpy as np

from t2i_jax.core import hosts
from t2i_jax.data import loader
from t2i_jax.runs import checkpoint
from t2i_jax.runs.bucket import upload
from t2i_jax.runs.prepare import Split
from t2i_jax.training.session import Session
from t2i_jax.training.stopping import end_early


def due(number: int, every) -> tuple[bool, bool]:
    """Return whether step `number` is evaluated, and whether it is scored.

    every: `config.train`.
    """
    last = number == every.steps
    evaluating, scoring = (
        bool(often) and (number % often == 0 or last)
        for often in (every.eval_every, every.score_every)
    )
    return evaluating, scoring


def assess(session: Session, current, frozen, number: int, stop: list[str]) -> None:
    """Evaluate and score step `number`, as far as either is due, and note it in its checkpoint.

    A signal ends this early; the run does it again when it goes on.
    """
    evaluating, scoring = due(number, session.prepared.config.train)
    if not (evaluating or scoring):
        return
    used = session.place.take(current).ema, session.place.take(frozen)
    ema, frozen_here = hosts.local_copy(jax.block_until_ready(used))
    if hosts.is_first() and not stop:
        watched = session.watchdog.inside(f"the evaluation of step {number}")
        with session.writers.paused(), watched, end_early() as whole:
            loss = evaluate(session, ema, frozen_here, number, whole) if evaluating else None
            if scoring:
                score(session, ema, number, whole)
            with whole():
                upload(session.prepared.workdir)
                checkpoint.mark_evaluated(session.manager, number, loss)


def evaluate(session: Session, ema, frozen, number: int, whole: Callable) -> float | None:
    """Write the validation losses and a contact sheet.

    frozen: what training uses, on the devices.
    whole: of `end_early`: files are written in one go.
    Returns the loss that ranks checkpoints, or None where a lower loss is not a better model.
    """
    p, writers = session.prepared, session.writers
    losses = validate(session.programs.measure, ema, frozen, p.validation, p.config)
    with whole():
        writers.write(number, losses)
    if session.evaluators.grid:
        page = session.evaluators.grid(
            session.pipeline(ema), p.training.source, p.validation.source
        )
        path = p.workdir / "grids" / f"{number:07d}.png"
        path.parent.mkdir(exist_ok=True)
        with whole():
            page.save(path)
            writers.image("samples", number, np.asarray(page))
    if not p.family.lower_loss_is_better:
        return None
    return sum(value for name, value in losses.items() if name.endswith("/loss"))


def score(session: Session, ema, number: int, whole: Callable) -> None:
    """Write the scores of `Evaluators.score`. whole: of `end_early`."""
    if not session.evaluators.score:
        return
    scores = session.evaluators.score(session.pipeline(ema), session.prepared.validation.source)
    if scores:
        with whole():
            session.writers.write(number, scores)
            session.writers.warn(number, session.prepared.family.warn(scores))


def validate(measure: Callable, ema, frozen, split: Split, config) -> dict[str, float]:
    """Return the mean losses of the averaged weights over the first validation examples.

    The noise is the same every time.
    """
    count = min(len(split.source.captions), config.train.validation_examples)
    size, sums, rng = config.train.batch_size, {}, jax.random.key(0)
    for first in range(0, count, size):
        index = np.arange(first, first + size)
        batch = loader.make_batch(split.source, split.columns, np.minimum(index, count - 1))
        weight = (index < count).astype(np.float32)
        found = measure(ema, frozen, batch, jax.random.fold_in(rng, first), weight)
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return {f"validation/{name}": value / count for name, value in sums.items()}
