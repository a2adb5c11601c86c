"""The noise that samplers draw on the way."""

import jax
from jaxtyping import Array, Float, Int, Key


def fresh_noise(
    keys: Key[Array, "B"], index: int | Int[Array, ""], x: Float[Array, "B *rest"]
) -> Float[Array, "B *rest"]:
    """Return standard normal noise like x, a function of each example's key and of the step."""
    draw = jax.vmap(
        lambda key: jax.random.normal(jax.random.fold_in(key, index), x.shape[1:], x.dtype)
    )
    return draw(keys)


def need_keys(keys: Key[Array, "B"] | None) -> Key[Array, "B"]:
    """Return `keys`. Raises ValueError if there are none."""
    if keys is None:
        raise ValueError("this sampler draws noise, so it needs keys, one an example")
    return keys
