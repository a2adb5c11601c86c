"""The programs of a training: what creates the state, what takes a step, what measures."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from t2i_jax.core import state
from t2i_jax.data import loader
from t2i_jax.data.poisson import INCLUDED
from t2i_jax.families.load import load_trained
from t2i_jax.runs.prepare import Prepared
from t2i_jax.training import step
from t2i_jax.training.gradients import make_gradient_transforms
from t2i_jax.training.optimizer import stop_frozen
from t2i_jax.training.parallel import Parallel
from t2i_jax.training.privacy import make_privacy, private_transforms
from t2i_jax.training.start import make_optimizers


class Programs(NamedTuple):
    """Functions that are compiled when they are first called.

    create: () -> a fresh state; not compiled.
    update: (state, frozen, batch) -> (state, metrics). Gives the state away.
    measure: (ema, frozen, batch, key, weight) -> sums of losses.
    is_finite: (state) -> whether all its numbers are finite.
    """

    create: Callable
    update: Any
    measure: Callable
    is_finite: Callable


def make_programs(prepared: Prepared, place: Parallel) -> Programs:
    """Return the programs of a prepared run."""
    config, family = prepared.config, prepared.family
    parallel_family = family if place.axis_name is None else load_trained(config, place.axis_name)
    optimizers = make_optimizers(config, family)
    privacy = make_privacy(config, len(prepared.training.source.captions))
    transforms = (
        private_transforms(privacy, config.train.batch_size)
        if privacy
        else make_gradient_transforms(config.optim)
    )
    update = step.make_step(
        parallel_family,
        optimizers,
        ema_decay=config.ema_decay,
        accumulate=config.train.accumulate,
        axis_name=place.axis_name,
        augment=prepared.augment,
        stop_frozen=stop_frozen(config.optim),
        **transforms,
    )
    shapes = batch_shapes(prepared)
    return Programs(
        create=functools.partial(state.create, family, optimizers, shapes, config.seed),
        update=place.compile(update),
        measure=jax.jit(step.make_measure(family)),
        is_finite=jax.jit(state.is_finite),
    )


def batch_shapes(prepared: Prepared, side: tuple[int, int] | None = None) -> dict:
    """Return the shapes of a whole batch.

    side: (height, width) of its pictures, where the source has some of several sizes.
    """
    (source, columns), size = prepared.training, prepared.config.train.batch_size
    zeros = np.zeros(size, np.int64)
    shapes = jax.eval_shape(lambda: loader.make_batch(source, columns, zeros))
    if prepared.config.privacy.clip:
        shapes[INCLUDED] = jax.ShapeDtypeStruct((size,), np.float32)
    if side:
        shapes["image"] = jax.ShapeDtypeStruct((size, *side, 3), np.uint8)
    return shapes


def step_shapes(programs: Programs, prepared: Prepared, place: Parallel, side=None) -> tuple:
    """Return the arguments of `update`, as shapes with shardings. Under `jit` only."""
    shapes = place.layout(jax.eval_shape(programs.create))
    frozen = place.layout(jax.eval_shape(lambda: prepared.frozen))
    return shapes, frozen, place.batch_layout(batch_shapes(prepared, side))


def compile_step(programs: Programs, prepared: Prepared, place: Parallel, side=None):
    """Return `update` compiled, before any state or batch is on the devices. Under `jit` only."""
    return programs.update.lower(*step_shapes(programs, prepared, place, side)).compile()


def compile_sizes(programs: Programs, prepared: Prepared, place: Parallel) -> dict:
    """Return {(height, width): `update` compiled} for all sizes of training pictures.

    Under `jit` only. The key is None if all pictures have the size of the config.
    """
    in_sizes = prepared.training.source.buckets
    sides = in_sizes.sizes if in_sizes else [None]
    return {side: compile_step(programs, prepared, place, side) for side in sides}


def choose_by_size(compiled: dict) -> Callable:
    """Return `update` for batches of all sizes of `compile_sizes`."""
    if None in compiled:
        return compiled[None]
    return lambda state, frozen, batch: compiled[batch["image"].shape[1:3]](state, frozen, batch)
