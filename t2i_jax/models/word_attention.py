"""How much the attention of a network ties each token of a caption to each cell of a picture.

Attention shows its weights to whoever asks flax for them (models/attention.py); here they are read.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from t2i_jax.core.text import TextCondition
from t2i_jax.models.attention import INTERMEDIATES, WEIGHTS

SELF, CROSS = "attention", "cross_attention"  # names of the modules


def shown_weights(shown: Any, module: str) -> list[Float[Array, "B Q K"]]:
    """Return the weights of all modules of this name, from what `apply` gives as `mutable`."""
    flat: dict[Any, Any] = flatten_dict(shown[INTERMEDIATES])
    return [x for path, found in flat.items() if path[-2:] == (module, WEIGHTS) for x in found]


def mean_self_attention(shown: Any) -> Float[Array, "B S S"]:
    """Return the mean over the layers of a transformer of its self-attention."""
    return jnp.stack(shown_weights(shown, SELF)).mean(0)


def token_maps(
    network: Any, params: Any, x: Float[Array, "B H W C"], t: Float[Array, "B"], text: TextCondition
) -> Float[Array, "B L h w"]:
    """Return which cells belong to each token in a denoising network, a mean over its layers.

    Where tokens and cells share one attention: see `joint_maps`. Where the cells attend to the
    tokens (cross-attention), they are the weights by which each cell does so, as in DAAM (arXiv
    2210.04885, equation 3); coarser maps are enlarged to the size of the finest.
    network: with a property `text_attention`, "joint" or "cross".
    """
    _, shown = network.apply({"params": params}, x, t, text, mutable=[INTERMEDIATES])
    batch, words = text.mask.shape
    if network.text_attention == "joint":
        maps = [joint_maps(shown_weights(shown, SELF), words)]
    else:
        maps = [weights.swapaxes(1, 2) for weights in shown_weights(shown, CROSS)]
    grids = [_grid(each.shape[2], x.shape[1], x.shape[2]) for each in maps]
    finest = (batch, words, *max(grids))
    return jnp.stack(
        [
            jax.image.resize(each.reshape(batch, words, *grid), finest, "linear")
            for each, grid in zip(maps, grids, strict=True)
        ]
    ).mean(0)


def joint_maps(layers: list[Float[Array, "B S S"]], words: int) -> Float[Array, "B L C"]:
    """Return the maps of the last `words` of S tokens over the others, the cells.

    The weights by which a token attends to the cells say where objects are, but hardly which one
    is meant. Of what a cell gives to all tokens, the share of this one says which one is meant, but
    it is large in the background too. A map is the product of the first with the square of the
    second, each a mean over layers (docs/word_maps.md has what each of them is worth).
    """
    of_cells = jnp.stack([x[:, :-words, -words:] for x in layers]).swapaxes(2, 3)
    share = (of_cells / jnp.maximum(of_cells.sum(2, keepdims=True), 1e-12)).mean(0)
    return jnp.stack([x[:, -words:, :-words] for x in layers]).mean(0) * share**2


def _grid(cells: int, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of so many square cells of an image."""
    side = round((height * width / cells) ** 0.5)
    return height // side, width // side
