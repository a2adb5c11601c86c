"""The simplest image tokenizer: a codebook of square patches, fitted by k-means.

`fit` runs once, before training. `encode` and `decode` are pure functions of the codebook, which is
an array among the frozen parts of a run.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Num, UInt8

from t2i_jax.core.pictures import to_unit
from t2i_jax.core.types import AnyArray
from t2i_jax.models.codebooks import nearest
from t2i_jax.models.layers import depth_to_space, space_to_depth

MIN_SEEDING_POINTS = 16384  # k-means++ draws its centres from a sample of this size, or more
CHUNK_POINTS = 16384  # points whose nearest centres are found at once, to bound the memory


def fit(
    images: UInt8[np.ndarray, "N H W 3"],
    patch: int,
    codes: int,
    seed: int = 0,
    iterations: int = 20,
) -> Float[np.ndarray, "{codes} D"]:
    """Return a codebook float32 [codes, patch * patch * 3] in [-1, 1], fitted to pictures.

    The method is Lloyd's k-means, seeded by k-means++, on the distinct patches. Each is weighted by
    the square root of its frequency, so that rare edges get codes beside the common background. A
    code that loses all its patches is moved to the patch with the largest weighted error.
    patch: side of a patch in pixels.
    codes: size of the codebook.
    Raises ValueError if there are fewer distinct patches than codes.
    """
    flat, weights = distinct_patches(images, patch, codes)
    return np.asarray(k_means(to_unit(jnp.asarray(flat)), weights, codes, seed, iterations))


def distinct_patches(
    images: UInt8[np.ndarray, "N H W 3"], patch: int, codes: int
) -> tuple[UInt8[np.ndarray, "n D"], Float[np.ndarray, "n"]]:
    """Return the distinct patches of pictures, and the square root of how often each occurs.

    Raises ValueError if there are fewer than `codes`.
    """
    patches = np.asarray(patches_of(jnp.asarray(images), patch)).reshape(-1, patch * patch * 3)
    # Sorting is far faster with each row as a single value.
    rows = np.ascontiguousarray(patches).view(f"V{patches.shape[1]}").ravel()
    _, first, counts = np.unique(rows, return_index=True, return_counts=True)
    if len(first) < codes:
        raise ValueError(
            f"image_tokenizer.codes is {codes}: a codebook needs as many distinct patches, and the "
            f"{len(images)} pictures have {len(first)}; set it to {len(first)} or less, or give "
            "more pictures (image_tokenizer.fit_pictures)"
        )
    return patches[first], np.sqrt(counts.astype(np.float32))


def k_means(
    points: Float[AnyArray, "n D"],
    weights: Float[AnyArray, "n"],
    codes: int,
    seed: int,
    iterations: int = 20,
) -> Float[Array, "{codes} D"]:
    """Return the centres of weighted points, by Lloyd's method, seeded by k-means++."""
    weights = jnp.asarray(weights)
    sample = np.random.default_rng(seed).permutation(len(points))[: max(MIN_SEEDING_POINTS, codes)]
    centres = _seeds(jax.random.key(seed), points[sample], weights[sample], codes)
    for _ in range(iterations):
        assigned, distance = _assign(points, centres)
        centres, mass = _means(points, weights, assigned, centres)
        empty = np.flatnonzero(np.asarray(mass) == 0)
        if len(empty):
            worst = np.argsort(-np.asarray(distance * weights), kind="stable")[: len(empty)]
            centres = centres.at[empty].set(points[worst])
    return centres


def encode(
    codebook: Float[AnyArray, "codes D"], images: Float[AnyArray, "B H W 3"]
) -> Int[Array, "B N"]:
    """Return the nearest code of each patch, in row order. Images are in [-1, 1]."""
    patch = _patch(codebook)
    return nearest(patches_of(jnp.asarray(images), patch), codebook)


def decode(
    codebook: Float[AnyArray, "codes D"], codes: Integer[AnyArray, "B N"], grid: tuple[int, int]
) -> Float[Array, "B H W 3"]:
    """Return images in [-1, 1] of codes on a grid (rows, columns)."""
    patch = _patch(codebook)
    cells = jnp.asarray(codebook)[codes]
    return depth_to_space(cells.reshape(-1, *grid, codebook.shape[1]), patch)


def vectors(codebook: Float[AnyArray, "codes D"]) -> Float[AnyArray, "codes D"]:
    """Return the patch of each code: the codebook itself."""
    return codebook


def patches_of(images: Num[Array, "B H W 3"], patch: int) -> Num[Array, "B N D"]:
    """Return the patches of pictures, in row order.

    Raises ValueError if the pictures do not divide into patches.
    """
    b, h, w, _ = images.shape
    if h % patch or w % patch:
        raise ValueError(f"pictures of {h} x {w} do not divide into patches of {patch}")
    return space_to_depth(images, patch).reshape(b, -1, patch * patch * 3)


def _patch(codebook) -> int:
    return round((codebook.shape[1] / 3) ** 0.5)


@functools.partial(jax.jit, static_argnames="codes")
def _seeds(key, points, weights, codes: int):
    """Return the centres of k-means++.

    Each next centre is a point, drawn in proportion to its weight times the squared distance to the
    nearest centre so far.
    """

    def add(i, state):
        centres, distance = state
        chosen = points[
            jax.random.categorical(jax.random.fold_in(key, i), jnp.log(weights * distance))
        ]
        return centres.at[i].set(chosen), jnp.minimum(distance, ((points - chosen) ** 2).sum(1))

    # Larger than the distance of any two points: the first centre is drawn by weight alone.
    far = jnp.full(len(points), 4.0 * points.shape[1] + 1.0)
    return jax.lax.fori_loop(0, codes, add, (jnp.zeros((codes, points.shape[1])), far))[0]


@jax.jit
def _assign(points, centres):
    """Return (nearest centre of each point, squared distance to it)."""
    chunks = jnp.array_split(points, max(1, len(points) // CHUNK_POINTS))
    codes = jnp.concatenate([nearest(c, centres) for c in chunks])
    return codes, ((points - centres[codes]) ** 2).sum(1)


@jax.jit
def _means(points, weights, codes, centres):
    """Return (weighted means of the points of each code, their mass); empty codes stay."""
    mass = jax.ops.segment_sum(weights, codes, len(centres))
    total = jax.ops.segment_sum(points * weights[:, None], codes, len(centres))
    return jnp.where(mass[:, None] > 0, total / jnp.maximum(mass, 1e-9)[:, None], centres), mass
