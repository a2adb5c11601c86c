"""A vision transformer: a picture as a sequence of patches, pooled to one vector.

Source: arXiv 2010.11929, with the mean over patches in place of a class token (arXiv 2205.01580,
section 3).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float, Key

from t2i_jax.core.types import AnyArray
from t2i_jax.models.layers import Dense, add_positions, space_to_depth
from t2i_jax.models.transformer import Transformer


class VisionTransformer(nn.Module):
    """A bidirectional transformer over the patches of a picture, with fixed 2D positions.

    patch: side of a patch, in pixels; it divides the sides of pictures.
    width: channels of a patch.
    depth: number of blocks.
    heads: attention heads per block.
    dropout: probability of dropping a number of a residual branch in training.
    dtype: of the computation; parameters are float32.
    remat: what the backward pass computes again (models/recompute.py).
    block: other fields of the blocks (see `transformer.Block`).
    """

    patch: int = 4
    width: int = 128
    depth: int = 4
    heads: int = 4
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: str = "none"
    block: Mapping = FrozenDict()

    @nn.compact
    def __call__(
        self, pictures: Float[AnyArray, "B H W C"], keys: Key[Array, "B"] | None = None
    ) -> Float[Array, "B width"]:
        """Return the mean over the patches of pictures in [-1, 1], after the last norm.

        keys: for dropout; None for no dropout.
        Raises ValueError for pictures whose sides are not multiples of `patch`.
        """
        height, width = pictures.shape[1:3]
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"model.patch is {self.patch}: it must divide the sides of pictures, "
                f"{height} x {width}"
            )
        patches = space_to_depth(jnp.asarray(pictures), self.patch)
        rows, columns = patches.shape[1:3]
        x = Dense(self.width, dtype=self.dtype, name="patch_in")(
            patches.reshape(len(patches), rows * columns, -1)
        )
        x = add_positions(x, (rows, columns))
        trunk = Transformer(
            self.depth, self.heads, self.dropout, self.dtype, self.remat, self.block, name="trunk"
        )
        return trunk(x, None, keys)[0].mean(1)
