"""Everything that training changes, as one tree, and the running average of the weights."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class TrainState(NamedTuple):
    """The state of a training run.

    step: int32 [], the number of steps done.
    params, opt_state: {player: tree}.
    extra: see `Family`.
    ema: {"params", "extra"}, the running averages.
    rng: the key of the run. Every random number is a function of it, the step and the example.
    """

    step: Any
    params: Any
    opt_state: Any
    extra: Any
    ema: Any
    rng: Any


def create(family, optimizers, batch, seed: int) -> TrainState:
    """Return a fresh state. Fit for `jax.eval_shape` and `jax.jit`.

    batch: gives shapes: arrays or `jax.ShapeDtypeStruct`s.
    """
    rng = jax.random.key(seed)
    params, extra = family.init(jax.random.fold_in(rng, 2**31), batch)
    opt_state = {player: optimizers[player].init(params[player]) for player in family.losses}
    # A copy: the step donates its state, and one buffer cannot be given away twice.
    ema = jax.tree.map(jnp.copy, {"params": params, "extra": extra})
    return TrainState(jnp.int32(0), params, opt_state, extra, ema, rng)


def is_finite(state: TrainState):
    """Return bool []: whether all numbers of a state are finite."""
    floats = (x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating))
    return jnp.stack([jnp.isfinite(x).all() for x in floats]).all()


def checksum(tree):
    """Return a checksum of all numbers in a tree: a weighted sum of their hashed bits, uint32 [].

    Changing one number always changes it. Sums of whole numbers do not depend on their order, so
    it is the same on any number of devices.
    """

    def of_array(x):
        if jnp.issubdtype(x.dtype, jnp.bool_):
            bits = x
        elif x.dtype.itemsize < 4:
            bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
        else:
            bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
        place = jnp.arange(bits.size, dtype=jnp.uint32).reshape(bits.shape)
        bits = bits.astype(jnp.uint32)
        hashed = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)  # one to one
        hashed ^= hashed >> 13
        odd = 2 * place + 1  # so that no change of one number is multiplied away
        return jnp.sum(hashed * odd, dtype=jnp.uint32)

    return sum(map(of_array, map(jnp.asarray, jax.tree.leaves(tree))), start=jnp.uint32(0))


def update_ema(ema, new, step, decay: float, carried: Sequence[str] = ()):
    """Move the averages towards `new`: ema + (new - ema) * (1 - d).

    d = min(decay, (1 + step) / (10 + step)): the warm-up keeps the random start out of the average
    of a short run.
    ema, new: {"params", "extra"}.
    carried: names of `extra` that are copied from `new`, not averaged (see `Family`). Arrays that
        are not floats are always copied.
    """
    d = jnp.minimum(decay, (1.0 + step) / (10.0 + step))

    def average(old, value):
        floating = jnp.issubdtype(value.dtype, jnp.floating)
        return old + (value - old) * (1.0 - d) if floating else value

    kept = {name: new["extra"][name] for name in carried}
    averaged = jax.tree.map(average, ema, new)
    return averaged if not kept else {**averaged, "extra": {**averaged["extra"], **kept}}
