"""Everything that training changes, as one tree; and the running average of the weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class TrainState(NamedTuple):
    """step: int32 [].   params: {player: tree}.   opt_state: {player: tree}.   extra: see `Family`.
    ema: {"params", "extra"}, the averages.   rng: the key of the run; every random number is a function of it and the step.
    """

    step: Any
    params: Any
    opt_state: Any
    extra: Any
    ema: Any
    rng: Any


def create(family, optimizers, batch, seed: int) -> TrainState:
    """A fresh state; `batch` gives shapes (arrays or `jax.ShapeDtypeStruct`s). Also fit for `jax.eval_shape`."""
    rng = jax.random.key(seed)
    params, extra = family.init(jax.random.fold_in(rng, 2**31), batch)
    opt_state = {player: optimizers[player].init(params[player]) for player in family.losses}
    # A copy: the step donates its state, and one buffer cannot be given away twice.
    ema = jax.tree.map(jnp.copy, {"params": params, "extra": extra})
    return TrainState(jnp.int32(0), params, opt_state, extra, ema, rng)


def update_ema(ema, new, step, decay: float):
    """ema + (new - ema) * (1 - d) with d = min(decay, (1 + step) / (10 + step)); leaves that are not floats are those of `new`.

    The warm-up keeps the random start out of the average of a short run.
    """
    d = jnp.minimum(decay, (1.0 + step) / (10.0 + step))

    def average(old, value):
        return old + (value - old) * (1.0 - d) if jnp.issubdtype(value.dtype, jnp.floating) else value

    return jax.tree.map(average, ema, new)
