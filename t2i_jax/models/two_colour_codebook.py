"""A codebook of patches in two parts: a pair of colours, and how they are mixed in each pixel.

This is the idea of block truncation coding (Delp and Mitchell 1979), of which textures on graphics
cards are made: most small patches hold two colours at most. A patch is a + m (b - a), with a pair
of colours (a, b) out of a few, and a mask m in [0, 1] for each pixel out of many. So an edge is
learned once for all colours, and P pairs and M masks together describe P * M patches.

A code is pair * M + mask. `fit` runs once, before training; the rest are pure functions of the
arrays it returns, the frozen part of a run:

    pairs: float32 [P, 2, 3], colours in [-1, 1]
    masks: float32 [M, D], with D pixels in a patch
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, UInt8

from t2i_jax.core.pictures import to_unit
from t2i_jax.core.types import AnyArray
from t2i_jax.models.codebooks import nearest
from t2i_jax.models.layers import depth_to_space
from t2i_jax.models.patch_codebook import distinct_patches, k_means, patches_of

Arrays = dict[str, AnyArray]

SEEDING_PATCHES = 8192  # pairs are chosen among the ends of so many patches
SEEDING_TRIES = 8  # draws of each next pair, of which the best is kept
ITERATIONS = 5
MIN_SQUARED_CONTRAST = 1e-6  # of two colours; patches of one colour are divided by it
# Mean squared errors of a pixel that differ by less are equal: then the first pair is taken. So a
# patch of the most frequent colour always has the same code, though it is part of many pairs.
SAME_ERROR = 1e-4


class Mixtures(NamedTuple):
    """How well each pair of colours describes each patch with a mask of its own.

    masks: [..., P, D], the best masks, which may lie outside [0, 1].
    contrast: [P], the squared distance of the two colours.
    errors: [..., P], what is left with masks in [0, 1], squared, a sum over the patch.
    """

    masks: Float[Array, "*n P D"]
    contrast: Float[Array, "P"]
    errors: Float[Array, "*n P"]


def mixtures(x: Float[AnyArray, "*n D 3"], pairs: Float[AnyArray, "P 2 3"]) -> Mixtures:
    """Project the pixels of patches on the line between the two colours of each pair."""
    start, line = pairs[:, 0], pairs[:, 1] - pairs[:, 0]
    contrast = jnp.maximum((line**2).sum(-1), MIN_SQUARED_CONTRAST)
    away = jnp.asarray(x)[..., None, :, :] - start[:, None]  # [..., P, D, 3]
    masks = jnp.einsum("...pdc,pc->...pd", away, line / contrast[:, None])
    left = away - jnp.clip(masks, 0, 1)[..., None] * line[:, None]
    return Mixtures(masks, contrast, (left**2).sum((-1, -2)))


def fit(
    images: UInt8[np.ndarray, "N H W 3"], patch: int, pairs: int, masks: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Fit `pairs` and `masks` to the distinct patches of pictures; see the file for the result.

    First the pairs, with any masks. Pair 0 is the mean colour of the most frequent patch, twice: so
    whether there is anything at all in a place is told by the pair alone. The others begin as the
    two ends of patches along their greatest variance: each next one is the best of SEEDING_TRIES
    patches, drawn in proportion to the squared error they have so far. Then patches choose their
    pair, and each pair is refitted by least squares, in turn. Second the masks: all 0 and all 1, so
    that the inside of an object is flat, and the others by k-means on those of all patches,
    weighted by contrast. As in `patch_codebook.fit`, a patch counts by the square root of its
    frequency.
    masks: 3 or more.
    patch: side of a patch in pixels.
    Raises ValueError if there are fewer distinct patches than codes.
    """
    flat, weights = distinct_patches(images, patch, pairs * masks)
    x = to_unit(jnp.asarray(flat.reshape(len(flat), -1, 3)))
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(x))[:SEEDING_PATCHES]
    common = jnp.broadcast_to(x[weights.argmax()].mean(0), (2, 3))
    colours = _fit_pairs(x[chosen], weights[chosen], common, pairs, rng)
    found = _compiled_mixtures(x, colours)
    best = jnp.argmin(found.errors, -1)
    own = jnp.take_along_axis(found.masks, best[:, None, None], 1)[:, 0]
    points = jnp.clip(own, 0, 1)
    centres = k_means(points, jnp.asarray(weights) * found.contrast[best], masks - 2, seed)
    whole = jnp.arange(2.0)[:, None] * jnp.ones(points.shape[1])
    return {"pairs": np.asarray(colours), "masks": np.asarray(jnp.concatenate([whole, centres]))}


def encode(arrays: Arrays, images: Float[AnyArray, "B H W 3"]) -> Int[Array, "B N"]:
    """Return the code of each patch, in row order. Images are in [-1, 1].

    The pair is the one with the least error for any mask, then the mask is the nearest one.
    """
    masks = jnp.asarray(arrays["masks"])
    x = patches_of(jnp.asarray(images), _side(masks))
    x = x.reshape(*x.shape[:2], -1, 3)
    found = mixtures(x, arrays["pairs"])
    limit = found.errors.min(-1, keepdims=True) + SAME_ERROR * x.shape[-2]
    pair = jnp.argmax(found.errors <= limit, -1)
    own = jnp.take_along_axis(found.masks, pair[..., None, None], 2)[:, :, 0]
    return (pair * len(masks) + nearest(own, masks)).astype(jnp.int32)


def vectors(arrays: Arrays) -> Float[Array, "codes D3"]:
    """Return the patch of each code in [-1, 1], as `patch_codebook` has them."""
    pairs, masks = jnp.asarray(arrays["pairs"]), jnp.asarray(arrays["masks"])
    start, line = pairs[:, None, None, 0], (pairs[:, 1] - pairs[:, 0])[:, None, None]
    return (start + masks[None, :, :, None] * line).reshape(len(pairs) * len(masks), -1)


def decode(
    arrays: Arrays, codes: Integer[AnyArray, "B N"], grid: tuple[int, int]
) -> Float[Array, "B H W 3"]:
    """Return images in [-1, 1] of codes on a grid (rows, columns)."""
    table = vectors(arrays)
    cells = table[codes].reshape(-1, *grid, table.shape[1])
    return depth_to_space(cells, _side(arrays["masks"]))


def _side(masks) -> int:
    return round(masks.shape[1] ** 0.5)


_compiled_mixtures = jax.jit(mixtures)


def _fit_pairs(x, weights, first, count: int, rng) -> jax.Array:
    """Return pairs [count, 2, 3], `first` [2, 3] among them, for patches x [n, D, 3]; see `fit`."""
    candidates, pairs = _ends(x), [first]
    error = np.asarray(_compiled_mixtures(x, first[None]).errors)[:, 0]
    while len(pairs) < count:
        chance = (weights * error) ** 2
        chance = chance / chance.sum() if chance.any() else np.full(len(x), 1 / len(x))
        drawn = rng.choice(len(x), SEEDING_TRIES, p=chance)
        each = np.asarray(_compiled_mixtures(x, candidates[drawn]).errors).T
        left = np.minimum(each, error)  # [tries, n]
        kept = int(np.argmin(left @ weights))
        pairs.append(candidates[drawn[kept]])
        error = left[kept]
    found = jnp.stack(pairs)
    for _ in range(ITERATIONS):
        found = _refit(x, jnp.asarray(weights), found).at[0].set(first)
    return found


@jax.jit
def _ends(x):
    """Return the two pixels [n, 2, 3] that are farthest apart along the patch's first axis.

    The darker one comes first.
    """
    away = x - x.mean(1, keepdims=True)
    covariance = jnp.einsum("ndc,nde->nce", away, away)
    along = jnp.einsum("ndc,nc->nd", away, jnp.linalg.eigh(covariance)[1][..., -1])
    ends = jnp.stack([along.argmin(1), along.argmax(1)], 1)
    pair = jnp.take_along_axis(x, ends[..., None], 1)
    order = jnp.argsort(pair.sum(-1), axis=1)
    return jnp.take_along_axis(pair, order[..., None], 1)


@jax.jit
def _refit(x, weights, pairs):
    """Return each pair as the least-squares fit to the patches that it describes best."""
    found = mixtures(x, pairs)
    best = found.errors.argmin(-1)
    masks = jnp.clip(jnp.take_along_axis(found.masks, best[:, None, None], 1)[:, 0], 0, 1)
    shares = jnp.stack([1 - masks, masks], -1)  # [n, D, 2]
    products = jnp.einsum("ndi,ndj,n->nij", shares, shares, weights)
    sums = jnp.einsum("ndi,ndc,n->nic", shares, x, weights)
    total = jax.ops.segment_sum(products, best, len(pairs)) + 1e-6 * jnp.eye(2)
    # A pair without patches stays.
    goal = jax.ops.segment_sum(sums, best, len(pairs)) + 1e-6 * pairs
    return jnp.linalg.solve(total, goal)
