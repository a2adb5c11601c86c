"""A pool of earlier pictures of a generator (arXiv 1612.07828, section 2.3).

The discriminator sees some of them in place of new ones, so that it does not forget the generator's
earlier mistakes, and the players do not circle around each other.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


class Pool(NamedTuple):
    """Pictures drawn earlier.

    pictures: those that are kept.
    filled: how many of them there are; the others are zeros.
    """

    pictures: Float[Array, "P H W C"]
    filled: Int[Array, ""]


def make_pool(size: int, side: int, channels: int = 3) -> Pool:
    """Return an empty pool that has room for `size` pictures of side x side pixels."""
    return Pool(jnp.zeros((size, side, side, channels)), jnp.int32(0))


def exchange(
    pool: Pool, new: Float[Array, "B H W C"], keys: Key[Array, "B"]
) -> tuple[Float[Array, "B H W C"], Pool]:
    """Return (the pictures to show, the pool afterwards), one picture after another.

    Until the pool is full, each new picture is shown and kept. Then it is shown with probability
    1/2; otherwise it takes the place of a random one of the pool, which is shown.
    A pool of size 0 shows all new pictures.
    """
    size = len(pool.pictures)
    if not size:
        return new, pool

    def one(pool: Pool, given):
        x, key = given
        coin_key, place_key = jax.random.split(key)
        is_full = pool.filled == size
        swapped = is_full & jax.random.bernoulli(coin_key)
        place = jnp.where(is_full, jax.random.randint(place_key, (), 0, size), pool.filled)
        old = pool.pictures[place]
        kept = jnp.where(swapped | ~is_full, x, old)
        pictures = pool.pictures.at[place].set(kept)
        return Pool(pictures, jnp.minimum(pool.filled + 1, size)), jnp.where(swapped, old, x)

    pool, shown = jax.lax.scan(one, pool, (new, keys))
    return shown, pool
