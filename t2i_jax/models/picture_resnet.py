"""A residual network over a picture, pooled by attention to one vector: CLIP's ResNet, in small.

Source: arXiv 2103.00020, section 2.4.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from t2i_jax.core.types import AnyArray
from t2i_jax.models.attention import Attention
from t2i_jax.models.layers import Dense, add_positions, group_norm, space_to_depth
from t2i_jax.models.recompute import recomputed

EXPANSION = 4  # channels of a block's result over those of its 3 x 3 convolution
# Few groups: in a group of one channel, the norm would undo how strong the channel is.
_normed = functools.partial(group_norm, groups=4)


class Bottleneck(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 on a residual branch (arXiv 1512.03385, figure 5).

    channels: of the 3 x 3 convolution; the result has EXPANSION times as many.
    halve: halve the sides by the mean over 2 x 2 cells, in place of a stride (as CLIP does).
    dtype: of the computation.
    """

    channels: int
    halve: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        def dense(y, features, name):
            return Dense(features, use_bias=False, dtype=self.dtype, name=name)(y)

        features = EXPANSION * self.channels
        y = nn.relu(_normed(dense(x, self.channels, "enter"), self.dtype, "enter_norm"))
        conv = nn.Conv(self.channels, (3, 3), use_bias=False, dtype=self.dtype, name="conv")
        y = nn.relu(_normed(conv(y), self.dtype, "conv_norm"))
        if self.halve:
            x, y = (nn.avg_pool(each, (2, 2), (2, 2)) for each in (x, y))
        y = _normed(dense(y, features, "leave"), self.dtype, "leave_norm")
        if x.shape[-1] != features:
            x = _normed(dense(x, features, "skip"), self.dtype, "skip_norm")
        return nn.relu(x + y)


class PictureResNet(nn.Module):
    """A residual network over pictures whose cells are pooled by attention.

    The query of the pooling is the mean over the cells. GroupNorm takes the place of the paper's
    BatchNorm, so that no picture changes the vector of another. The first layer takes patches, as
    small pictures need no more.

    patch: side of the square of pixels that the first layer takes as channels.
    width: channels of the 3 x 3 convolutions of the finest level; blocks have 4 times as many.
    multipliers: channels of each level over `width`, the finest level first; each level halves the
        sides of the one before.
    blocks: residual blocks of each level.
    heads: attention heads of the pooling.
    dtype: of the computation; parameters are float32.
    remat: what the backward pass computes again (models/recompute.py).
    """

    patch: int = 2
    width: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4)
    blocks: int = 1
    heads: int = 4
    dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, pictures: Float[AnyArray, "B H W C"], keys: Key[Array, "B"] | None = None
    ) -> Float[Array, "B width"]:
        """Return the pooled vectors of pictures in [-1, 1].

        keys: not used; there is no dropout.
        Raises ValueError for pictures whose sides are not multiples of patch * 2^(levels - 1).
        """
        del keys
        height, width = pictures.shape[1:3]
        multiple = self.patch * 2 ** (len(self.multipliers) - 1)
        if height % multiple or width % multiple:
            raise ValueError(
                f"a picture of {height} x {width} cannot be halved: with model.patch {self.patch} "
                f"and {len(self.multipliers)} levels, its sides must be multiples of {multiple}"
            )
        x = space_to_depth(jnp.asarray(pictures), self.patch)
        features = EXPANSION * self.width
        stem = nn.Conv(features, (3, 3), use_bias=False, dtype=self.dtype, name="conv_in")
        x = nn.relu(_normed(stem(x), self.dtype, "norm_in"))
        block = recomputed(Bottleneck, self.remat)
        for level, multiplier in enumerate(self.multipliers):
            for i in range(self.blocks):
                own = (self.width * multiplier, level > 0 and i == 0, self.dtype)
                x = block(*own, name=f"level_{level}_{i}")(x)
        return self._pooled(x)

    def _pooled(self, x):
        """Return the attention of the mean over the cells to the mean and the cells."""
        grid = (x.shape[1], x.shape[2])
        cells = add_positions(x.reshape(len(x), -1, x.shape[-1]), grid)
        mean = cells.mean(1, keepdims=True)
        both = jnp.concatenate([mean, cells], axis=1)
        attention = Attention(self.heads, qk_norm=False, dtype=self.dtype, name="pooling")
        return attention(mean, both)[0][:, 0].astype(jnp.float32)
