"""Multi-scale residual quantization (arXiv 2404.02905, algorithm 1).

Several grids, coarse to fine, encode a picture: each encodes what the coarser grids left over.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from jaxtyping import Array, Float, Int, Integer

from t2i_jax.core.random import derive_keys
from t2i_jax.core.types import AnyArray
from t2i_jax.models.codebooks import straight_through
from t2i_jax.models.quantize import Keys, Quantized, Quantizer, Vectors

Codes = Integer[AnyArray, "B N"]


class Scaled(NamedTuple):
    """A quantizer over several grids. Its codes are int32 [B, N]: one grid after another.

    quantizer: as any other, but with such codes.
    compose: (params, extra, codes) -> vectors float [B, side, side, D], the sum of all grids.
    coarse: (params, extra, codes) -> float [B, N, D]: for each place, the sum of the coarser grids,
        resized to the grid of the place.
    """

    quantizer: Quantizer
    compose: Callable
    coarse: Callable


def over_scales(quantizer: Quantizer, scales: tuple[int, ...]) -> Scaled:
    """Return `quantizer` applied to square grids, with one vocabulary for all.

    The vectors get the gradient of the sum of the grids (straight through). The loss is the mean of
    the loss of `quantizer` over the grids.
    scales: sides of the grids, coarse to fine; the last is the side of the encoder's output.
    Raises ValueError for sides that do not increase, and for a quantizer without codes.
    """
    if not quantizer.size or quantizer.encode is None or quantizer.lookup is None:
        raise ValueError("quantizer.scales wants codes, and this quantizer has none")
    if list(scales) != sorted(set(scales)) or min(scales) < 1:
        raise ValueError(
            f"quantizer.scales is {tuple(scales)}: sides of grids, coarse to fine, such as "
            "(1, 2, 4, 8)"
        )
    full_side, encode_grid, lookup = scales[-1], quantizer.encode, quantizer.lookup

    def apply(params, extra, z: Vectors, keys: Keys) -> Quantized:
        z = quantizer.latent(z)
        check(z)
        rest, losses, metrics = z, [], []  # what the grids so far left over
        for i, side in enumerate(scales):
            part = quantizer.apply(params, extra, resize(rest, side), derive_keys(keys, i))
            rest, extra = rest - stop_gradient(resize(part.vectors, full_side)), part.extra
            losses.append(part.loss)
            metrics.append(part.metrics)
        loss, mean = jax.tree.map(
            lambda *x: sum(x) / len(scales), *zip(losses, metrics, strict=True)
        )
        return Quantized(straight_through(z, stop_gradient(z - rest)), loss, extra, mean)

    def check(z):
        if z.shape[1:3] != (full_side, full_side):
            raise ValueError(
                f"quantizer.scales ends with {full_side}, and the encoder gives {z.shape[1]} x "
                f"{z.shape[2]} vectors"
            )

    def encode(params, extra, z: Vectors) -> Int[Array, "B N"]:
        check(z)
        rest, found = quantizer.latent(z), []
        for side in scales:
            codes = encode_grid(params, extra, resize(rest, side))
            rest = rest - resize(lookup(params, extra, codes), full_side)
            found.append(codes.reshape(len(z), -1))
        return jnp.concatenate(found, axis=1)

    def partial_sums(params, extra, codes: Codes) -> list[Float[Array, "B side side D"]]:
        """Return the sum of all grids coarser than each grid, and last the sum of all."""
        total, first, found = jnp.zeros((len(codes), full_side, full_side, quantizer.dim)), 0, []
        for side in scales:
            found.append(total)
            own = lookup(params, extra, codes[:, first : first + side**2].reshape(-1, side, side))
            total, first = total + resize(own, full_side), first + side**2
        return [*found, total]

    def compose(params, extra, codes: Codes) -> Float[Array, "B side side D"]:
        return partial_sums(params, extra, codes)[-1]

    def coarse(params, extra, codes: Codes) -> Float[Array, "B N D"]:
        coarser = zip(scales, partial_sums(params, extra, codes)[:-1], strict=True)
        return jnp.concatenate(
            [resize(x, side).reshape(len(x), -1, quantizer.dim) for side, x in coarser], axis=1
        )

    return Scaled(quantizer._replace(apply=apply, encode=encode), compose, coarse)


def resize(x: Float[AnyArray, "B s s D"], side: int) -> Float[Array, "B {side} {side} D"]:
    """Resize square grids: means of areas to shrink, bicubic interpolation to grow."""
    if side >= x.shape[1]:
        return jax.image.resize(x, (len(x), side, side, x.shape[-1]), "cubic")
    ends = np.arange(side + 1) * x.shape[1] / side
    cells = np.arange(x.shape[1])
    share = (
        np.clip(np.minimum(ends[1:, None], cells + 1) - np.maximum(ends[:-1, None], cells), 0, 1)
        * side
        / x.shape[1]
    )
    return jnp.einsum("iy,jx,byxd->bijd", share.astype(np.float32), share.astype(np.float32), x)
