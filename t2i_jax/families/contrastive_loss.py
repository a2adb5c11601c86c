"""Contrastive losses of pictures and captions, over the global batch of all devices.

A picture and its own caption are drawn together, a picture and the captions of others apart. A
caption that equals a picture's own is right for it too, so such pairs are left out.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from t2i_jax.core.types import AnyArray


class Kind(NamedTuple):
    """A contrastive loss.

    loss: (logits [B, G], own [B], counts [B, G]) -> [B], of each row.
    both_ways: whether it is the mean over captions of pictures and pictures of captions. A loss of
        pairs is the same both ways.
    scale, bias: of `models.shared_space.SharedSpace` at the start.
    """

    loss: Callable
    both_ways: bool
    scale: float
    bias: float | None


def softmax_loss(
    logits: Float[Array, "B G"], own: Int[Array, "B"], counts: Bool[Array, "B G"]
) -> Float[Array, "B"]:
    """Return the cross-entropy in nats of each row's own column (arXiv 2103.00020, figure 3).

    own: the column of each row that is right.
    counts: which columns are compared; a row's own column always is.
    """
    right = jnp.take_along_axis(logits, own[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(jnp.where(counts, logits, -jnp.inf), axis=1) - right


def sigmoid_loss(
    logits: Float[Array, "B G"], own: Int[Array, "B"], counts: Bool[Array, "B G"]
) -> Float[Array, "B"]:
    """Return the sum over columns of the nats of "own or not" (arXiv 2303.15343, section 3).

    own, counts: as for `softmax_loss`.
    """
    sign = jnp.where(jnp.arange(logits.shape[1]) == own[:, None], 1.0, -1.0)
    return jnp.where(counts, jax.nn.softplus(-sign * logits), 0.0).sum(1)


# CLIP's (its scale at the start: section 2.5) and SigLIP's.
KINDS: Mapping[str, Kind] = {
    "softmax": Kind(softmax_loss, True, 1 / 0.07, None),
    "sigmoid": Kind(sigmoid_loss, False, 10.0, -10.0),
}


def contrast(
    kind: Kind,
    logits: Callable[[Any, Any], Float[Array, "_ _"]],
    image: Float[AnyArray, "B E"],
    caption: Float[AnyArray, "B E"],
    tokens: Int[AnyArray, "B L"],
    weight: Float[AnyArray, "B"],
    axis_name: str | None = None,
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Return (the loss of each example, 1 where a picture is nearest to its own caption, else 0).

    logits: (vectors [A, E], vectors [G, E]) -> [A, G].
    image, caption: the vectors of the examples of this device.
    tokens: of the captions, which tell which are equal.
    weight: 0 for rows that only pad the batch: they are nobody's others.
    axis_name: of pmap, over whose devices the batch is split; None if the arrays are global.
    """
    arrays = (jnp.asarray(image), jnp.asarray(caption), jnp.asarray(tokens), jnp.asarray(weight))
    images, captions, all_tokens, weights = gather(arrays, axis_name)
    own = places(len(image), axis_name)
    counts = compared(arrays[2], all_tokens, weights, own)
    of_pictures = logits(image, captions)
    losses = kind.loss(of_pictures, own, counts)
    if kind.both_ways:
        losses = (losses + kind.loss(logits(caption, images), own, counts)) / 2
    nearest = jnp.argmax(jnp.where(counts, of_pictures, -jnp.inf), axis=1)
    return losses, (nearest == own).astype(jnp.float32)


def gather(tree: Any, axis_name: str | None) -> Any:
    """Return arrays [B, ...] of this device as those of the global batch, [G, ...]."""
    return tree if axis_name is None else jax.lax.all_gather(tree, axis_name, tiled=True)


def places(count: int, axis_name: str | None) -> Int[Array, "{count}"]:
    """Return the places in the global batch of the `count` examples of this device."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    return first + jnp.arange(count)


def compared(
    tokens: Int[Array, "B L"],
    all_tokens: Int[Array, "G L"],
    weights: Float[Array, "G"],
    own: Int[Array, "B"],
) -> Bool[Array, "B G"]:
    """Return with which examples of the global batch each example is compared.

    It is compared with itself, and with examples of weight > 0 that have another caption.
    """
    is_own = jnp.arange(len(all_tokens)) == own[:, None]
    other = (tokens[:, None] != all_tokens[None]).any(-1)
    return is_own | (other & (weights > 0))
