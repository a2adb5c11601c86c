"""DiffAugment (arXiv 2006.10738): differentiable augmentation of what a discriminator takes.

Real and generated pictures are changed in the same ways in every training step, so that the
discriminator cannot learn the training set by heart and gradients still reach the generator.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from t2i_jax.core.random import derive_keys
from t2i_jax.core.types import AnyArray
from t2i_jax.data.augmentation import colour, crop


def cutout(
    x: Float[AnyArray, "B H W C"], keys: Key[Array, "B"], fraction: float = 0.5
) -> Float[Array, "B H W C"]:
    """Set a rectangle of this fraction of the sides to 0 (arXiv 1708.04552).

    The centre of the rectangle is anywhere in the picture.
    """

    def is_inside(keys, side):
        cut = int(side * fraction + 0.5)
        last = side + 1 - cut % 2
        centre = jax.vmap(lambda key: jax.random.randint(key, (), 0, last))(keys)[:, None]
        first = centre - cut // 2
        return (np.arange(side) >= first) & (np.arange(side) < first + cut)

    rows, columns = (is_inside(derive_keys(keys, axis), x.shape[1 + axis]) for axis in (0, 1))
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], 0, x)


# The place of a name is the number from which its random keys are derived.
POLICIES: Mapping[str, Callable] = {
    "colour": colour,
    "translation": lambda x, keys: crop(x, keys, 1 / 8, fill=0.0),
    "cutout": cutout,
}


def parse_policy(policy: str) -> list[str]:
    """Return the names in "colour,cutout". Raises ValueError if one is not in POLICIES."""
    names = [name.strip() for name in policy.split(",") if name.strip()]
    if unknown := [name for name in names if name not in POLICIES]:
        known = ", ".join(POLICIES)
        raise ValueError(
            f"there is no differentiable augmentation {unknown[0]!r}: there are {known}"
        )
    return names


def apply_policy(
    policy: str, x: Float[AnyArray, "B H W C"], keys: Key[Array, "B"]
) -> Float[AnyArray, "B H W C"]:
    """Augment real or generated pictures x, in [-1, 1].

    policy: names of POLICIES, separated by commas; "" for none. Raises ValueError for others.
    """
    for name in parse_policy(policy):
        x = POLICIES[name](x, derive_keys(keys, list(POLICIES).index(name)))
    return x
