"""Pictures as sums of a few whole pictures: principal component analysis ("eigenfaces").

Source: Turk and Pentland, "Eigenfaces for Recognition", J. Cognitive Neuroscience 3 (1991), section
2. A few hundred pictures differ in at most as many directions. So a few hundred numbers describe
each of them nearly exactly, and every choice of the numbers is a picture without seams. Pictures
that were not fitted come back blurred.

`fit` runs once, before training. `encode` and `decode` are pure functions of its arrays.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from t2i_jax.core.pictures import to_unit
from t2i_jax.core.types import AnyArray


def fit(images: UInt8[np.ndarray, "N H W C"], components: int) -> dict[str, np.ndarray]:
    """Return the components of pictures in which they differ most.

    "mean" [D] is the mean picture in [-1, 1], D = H W C. "basis" [D, components] has orthonormal
    columns, and "deviation" [components] is the standard deviation of the pictures along each, the
    largest first. N pictures differ in N - 1 directions at most: further columns are 0, with
    deviation 1.
    """
    flat = np.asarray(to_unit(jnp.asarray(images))).reshape(len(images), -1)
    mean = flat.mean(0, dtype=np.float64).astype(np.float32)
    centred = flat - mean
    # The eigenvectors of the N x N products give those of D x D, which would not fit in memory.
    values, vectors = np.linalg.eigh(centred.astype(np.float64) @ centred.T)
    kept = np.flatnonzero(values > 1e-6 + 1e-9 * values[-1])[::-1][:components]
    basis = np.zeros((flat.shape[1], components), np.float32)
    basis[:, : len(kept)] = centred.T @ (vectors[:, kept] / np.sqrt(values[kept]))
    deviation = np.ones(components, np.float32)
    deviation[: len(kept)] = np.sqrt(values[kept] / len(images))
    return {"mean": mean, "basis": basis, "deviation": deviation}


def encode(
    arrays: Mapping[str, AnyArray], images: Float[AnyArray, "B H W C"]
) -> Float[Array, "B 1 1 components"]:
    """Return how much of each component is in pictures in [-1, 1], over its deviation."""
    flat = jnp.asarray(images).reshape(len(images), -1) - arrays["mean"]
    return (flat @ arrays["basis"] / arrays["deviation"])[:, None, None]


def decode(
    arrays: Mapping[str, AnyArray],
    latents: Float[AnyArray, "B 1 1 components"],
    shape: tuple[int, int, int],
) -> Float[Array, "B H W C"]:
    """Return the pictures of such numbers. shape: (H, W, C)."""
    amounts = jnp.asarray(latents)[:, 0, 0] * arrays["deviation"]
    return (amounts @ arrays["basis"].T + arrays["mean"]).reshape(-1, *shape)
