"""The plainest image tokenizer: a codebook of square patches, fitted by k-means.

`fit` runs once before training; `encode` and `decode` are pure functions of the codebook, an array of a run's frozen tree.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.models.layers import to_unit
from t2i_jax.models.quantize import nearest
from t2i_jax.models.unet import depth_to_space, space_to_depth


def fit(images: np.ndarray, patch: int, codes: int, seed: int = 0, iterations: int = 20) -> np.ndarray:
    """A codebook float32 [codes, patch * patch * 3] in [-1, 1] from uint8 images [N, H, W, 3].

    Lloyd's k-means, seeded by k-means++, on the distinct patches, each weighted by the square root of how often it occurs,
    so that the rare edges get codes beside the common background. Codes that lose all their patches are moved to the
    worst-served ones.
    Raises ValueError if there are fewer distinct patches than codes.
    """
    patches = np.asarray(_patches(jnp.asarray(images), patch)).reshape(-1, patch * patch * 3)
    rows = np.ascontiguousarray(patches).view(f"V{patches.shape[1]}").ravel()  # a row as one value sorts far faster
    _, first, counts = np.unique(rows, return_index=True, return_counts=True)
    flat = patches[first]
    if len(flat) < codes:
        raise ValueError(f"a codebook of {codes} needs as many distinct patches; the {len(images)} pictures have {len(flat)}")
    points, weights = to_unit(jnp.asarray(flat)), jnp.sqrt(jnp.asarray(counts, jnp.float32))
    few = np.random.default_rng(seed).permutation(len(flat))[: max(16384, codes)]
    centres = _seeds(jax.random.key(seed), points[few], weights[few], codes)
    for _ in range(iterations):
        codes_of, distance = _assign(points, centres)
        centres, mass = _means(points, weights, codes_of, centres)
        empty = np.flatnonzero(np.asarray(mass) == 0)
        if len(empty):
            worst = np.argsort(-np.asarray(distance * weights), kind="stable")[: len(empty)]
            centres = centres.at[empty].set(points[worst])
    return np.asarray(centres)


def encode(codebook, images):
    """Nearest codes int32 [B, (H / patch) * (W / patch)], in row order, of float images [B, H, W, 3] in [-1, 1]."""
    patch = _patch(codebook)
    return nearest(_patches(images, patch), codebook)


def decode(codebook, codes, grid: tuple[int, int]):
    """Float images [B, H, W, 3] in [-1, 1] of codes int [B, N] on a grid (rows, columns)."""
    patch = _patch(codebook)
    return depth_to_space(codebook[codes].reshape(-1, *grid, codebook.shape[1]), patch)


def _patch(codebook) -> int:
    return round((codebook.shape[1] / 3) ** 0.5)


def _patches(images, patch: int):
    b, h, w, _ = images.shape
    if h % patch or w % patch:
        raise ValueError(f"pictures of {h} x {w} do not divide into patches of {patch}")
    return space_to_depth(images, patch).reshape(b, -1, patch * patch * 3)


@functools.partial(jax.jit, static_argnames="codes")
def _seeds(key, points, weights, codes: int):
    """k-means++: each next centre is a point drawn in proportion to its weight and squared distance to those before."""

    def add(i, state):
        centres, distance = state
        chosen = points[jax.random.categorical(jax.random.fold_in(key, i), jnp.log(weights * distance))]
        return centres.at[i].set(chosen), jnp.minimum(distance, ((points - chosen) ** 2).sum(1))

    # Farther than any point from any other: the first centre is drawn by weight alone.
    far = jnp.full(len(points), 4.0 * points.shape[1] + 1.0)
    return jax.lax.fori_loop(0, codes, add, (jnp.zeros((codes, points.shape[1])), far))[0]


@jax.jit
def _assign(points, centres):
    chunks = jnp.array_split(points, max(1, len(points) // 16384))
    codes = jnp.concatenate([nearest(c, centres) for c in chunks])
    return codes, ((points - centres[codes]) ** 2).sum(1)


@jax.jit
def _means(points, weights, codes, centres):
    mass = jax.ops.segment_sum(weights, codes, len(centres))
    total = jax.ops.segment_sum(points * weights[:, None], codes, len(centres))
    return jnp.where(mass[:, None] > 0, total / jnp.maximum(mass, 1e-9)[:, None], centres), mass
