"""Random keys, one per example, so that results do not depend on how a batch is split."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from t2i_jax.core.arguments import MAX_SEED, whole_number


def derive_keys(keys: Key[Array, "B"], number: int | Int[Array, ""]) -> Key[Array, "B"]:
    """Derive one new key from each of `keys`, by folding in `number`."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def split_keys(keys: Key[Array, "B"], count: int) -> tuple[Key[Array, "B"], ...]:
    """Split each of `keys` into `count` independent ones. Returns `count` arrays of keys."""
    return tuple(derive_keys(keys, i) for i in range(count))


def draw_normal(keys: Key[Array, "B"], shape: tuple[int, ...]) -> Float[Array, "B ..."]:
    """Return standard normal noise of `shape` for each of `keys`, float32."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def example_keys(
    rng: Key[Array, ""], step: int | Int[Array, ""], count: int, axis_name: str | None = None
) -> Key[Array, "count"]:
    """Return one key per example.

    A key is a function of the run's key `rng`, the step, and the example's place in the global
    batch. Under pmap (`axis_name`), `count` is the size of this device's part of the batch.
    """
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    step_key = jax.random.fold_in(rng, step)
    return jax.vmap(lambda place: jax.random.fold_in(step_key, place))(
        first + jax.numpy.arange(count)
    )


def once_a_step_key(rng: Key[Array, ""], step: int | Int[Array, ""]) -> Key[Array, ""]:
    """Return the key of a step for noise that is drawn once per step, not once per example."""
    return jax.random.fold_in(jax.random.fold_in(rng, step), 2**32 - 1)


def keys_at(seed: int, index: Int[np.ndarray, "N"]) -> Key[Array, "N"]:
    """Return one key for each place of `index` among all that is drawn with `seed`.

    Raises ValueError for a seed that is not a whole number from 0 to MAX_SEED.
    """
    key = jax.random.key(whole_number("seed", seed, 0, MAX_SEED))
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(index))
