"""Codes of a picture on several grids, coarse to fine: each of what all coarser ones leave (arXiv 2404.02905, algorithm 1)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.models.quantize import Quantized, Quantizer, held, straight_through


class Scaled(NamedTuple):
    """A Quantizer whose codes are int32 [B, N] of all grids, one after another, and what else there is to know of them.

    compose: (params, extra, codes) -> vectors float [B, side, side, D], the sum of all grids.
    coarse: (params, extra, codes) -> float [B, N, D], at each place the sum of the coarser grids, in the size of its own.
    """

    quantizer: Quantizer
    compose: Callable
    coarse: Callable


def over_scales(quantizer: Quantizer, scales: tuple[int, ...]) -> Scaled:
    """The same vocabulary on square grids of these sides, the last of which is that of the encoder's vectors.

    The vectors get the gradient of the sum (straight through); the loss of `quantizer` is its mean over the grids. Raises
    ValueError for sides that do not rise, and for a quantizer without codes.
    """
    if not quantizer.size:
        raise ValueError("quantizer.scales wants codes, and this quantizer has none")
    if list(scales) != sorted(set(scales)) or min(scales) < 1:
        raise ValueError(f"quantizer.scales is {tuple(scales)}: sides of grids, coarse to fine, such as (1, 2, 4, 8)")
    whole = scales[-1]

    def apply(params, extra, z, keys):
        z = quantizer.latent(z)
        check(z)
        rest, losses, metrics = z, [], []  # the finest grid's loss is of all that is left
        for i, side in enumerate(scales):
            part = quantizer.apply(params, extra, resize(rest, side), fold_in(keys, i))
            rest, extra = rest - held(resize(part.vectors, whole)), part.extra
            losses.append(part.loss)
            metrics.append(part.metrics)
        loss, mean = jax.tree.map(lambda *x: sum(x) / len(scales), *zip(losses, metrics, strict=True))
        return Quantized(straight_through(z, held(z - rest)), loss, extra, mean)

    def check(z):
        if z.shape[1:3] != (whole, whole):
            raise ValueError(f"quantizer.scales ends with {whole}, and the encoder gives {z.shape[1]} x {z.shape[2]} vectors")

    def encode(params, extra, z):
        check(z)
        rest, found = quantizer.latent(z), []
        for side in scales:
            codes = quantizer.encode(params, extra, resize(rest, side))
            rest = rest - resize(quantizer.lookup(params, extra, codes), whole)
            found.append(codes.reshape(len(z), -1))
        return jnp.concatenate(found, axis=1)

    def sums(params, extra, codes):
        """The sum of all grids before each, and of all: float [B, whole, whole, D] each."""
        total, first, found = jnp.zeros((len(codes), whole, whole, quantizer.dim)), 0, []
        for side in scales:
            found.append(total)
            own = quantizer.lookup(params, extra, codes[:, first : first + side**2].reshape(-1, side, side))
            total, first = total + resize(own, whole), first + side**2
        return [*found, total]

    def coarse(params, extra, codes):
        before = zip(scales, sums(params, extra, codes)[:-1], strict=True)
        return jnp.concatenate([resize(x, side).reshape(len(x), -1, quantizer.dim) for side, x in before], axis=1)

    scaled = quantizer._replace(apply=apply, encode=encode)
    return Scaled(scaled, lambda params, extra, codes: sums(params, extra, codes)[-1], coarse)


def fold_in(keys, number: int):
    """Other keys [B], a function of these and the number."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def resize(x, side: int):
    """[B, s, s, D] -> [B, side, side, D]: means of areas when it shrinks, bicubic when it grows."""
    if side >= x.shape[1]:
        return jax.image.resize(x, (len(x), side, side, x.shape[-1]), "cubic")
    ends = np.arange(side + 1) * x.shape[1] / side
    cells = np.arange(x.shape[1])
    share = np.clip(np.minimum(ends[1:, None], cells + 1) - np.maximum(ends[:-1, None], cells), 0, 1) * side / x.shape[1]
    return jnp.einsum("iy,jx,byxd->bijd", share.astype(np.float32), share.astype(np.float32), x)
