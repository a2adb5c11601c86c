"""The Inception-v3 of the Frechet Inception Distance: the TF-Slim graph of 5 December 2015.

Source: arXiv 1512.00567. It differs from the Inception-v3 of other libraries: average pools leave
padding out of the mean, the last block uses a maximum pool, and there are 1,008 classes. The names
of the layers are those of the published file. Batch normalisation is folded into the convolution
before it (`t2i_jax.weights.inception`), which is equivalent at inference.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


def average_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Return the mean of the 3 x 3 cells around each cell, without those outside the picture."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def _conv(x, name, channels, kernel=(1, 1), stride=1, padding="SAME"):
    return nn.relu(nn.Conv(channels, kernel, (stride, stride), padding, name=name)(x))


def _chain(x, name, *layers):
    """Apply convolutions NAME_1, NAME_2, ... in turn.

    layers: for each one, the arguments of `_conv` after the name.
    """
    for i, layer in enumerate(layers, 1):
        x = _conv(x, f"{name}_{i}", *layer)
    return x


def _halve(x):
    return nn.max_pool(x, (3, 3), (2, 2))


class BlockA(nn.Module):
    """A block for 35 x 35 cells.

    pool: channels of the branch with the average pool.
    """

    pool: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W 224+{self.pool}"]:
        one = _conv(x, "branch1x1", 64)
        five = _chain(x, "branch5x5", (48,), (64, (5, 5)))
        three = _chain(x, "branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3)))
        return jnp.concatenate(
            [one, five, three, _conv(average_pool(x), "branch_pool", self.pool)], axis=-1
        )


class BlockB(nn.Module):
    """A block from 35 x 35 cells to 17 x 17."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w 480+C"]:
        three = _conv(x, "branch3x3", 384, (3, 3), 2, "VALID")
        double = _chain(x, "branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3), 2, "VALID"))
        return jnp.concatenate([three, double, _halve(x)], axis=-1)


class BlockC(nn.Module):
    """A block for 17 x 17 cells, with 7 x 7 convolutions as 1 x 7 and 7 x 1.

    channels: of the inner convolutions.
    """

    channels: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W 768"]:
        n, row, column = self.channels, (1, 7), (7, 1)
        one = _conv(x, "branch1x1", 192)
        seven = _chain(x, "branch7x7", (n,), (n, row), (192, column))
        double = _chain(x, "branch7x7dbl", (n,), (n, column), (n, row), (n, column), (192, row))
        return jnp.concatenate(
            [one, seven, double, _conv(average_pool(x), "branch_pool", 192)], axis=-1
        )


class BlockD(nn.Module):
    """A block from 17 x 17 cells to 8 x 8."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w 512+C"]:
        three = _chain(x, "branch3x3", (192,), (320, (3, 3), 2, "VALID"))
        seven = _chain(
            x, "branch7x7x3", (192,), (192, (1, 7)), (192, (7, 1)), (192, (3, 3), 2, "VALID")
        )
        return jnp.concatenate([three, seven, _halve(x)], axis=-1)


class BlockE(nn.Module):
    """A block for 8 x 8 cells.

    max_pool: pool by maximum instead of average, as in the last block.
    """

    max_pool: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W 2048"]:
        def split(x, name):
            return [_conv(x, f"{name}a", 384, (1, 3)), _conv(x, f"{name}b", 384, (3, 1))]

        one = _conv(x, "branch1x1", 320)
        three = split(_conv(x, "branch3x3_1", 384), "branch3x3_2")
        double = split(_chain(x, "branch3x3dbl", (448,), (384, (3, 3))), "branch3x3dbl_3")
        pooled = nn.max_pool(x, (3, 3), padding="SAME") if self.max_pool else average_pool(x)
        return jnp.concatenate([one, *three, *double, _conv(pooled, "branch_pool", 192)], axis=-1)


class Inception(nn.Module):
    """The whole network."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "B 299 299 3"]
    ) -> tuple[Float[Array, "B 2048"], Float[Array, "B 1008"]]:
        """Return (features, logits) of pictures in [-1, 1).

        The features are those of the last average pool. The logits are without the bias of the last
        layer: the Inception Score has been computed in this way since its first code.
        """
        x = _conv(x, "Conv2d_1a_3x3", 32, (3, 3), 2, "VALID")
        x = _conv(x, "Conv2d_2a_3x3", 32, (3, 3), 1, "VALID")
        x = _halve(_conv(x, "Conv2d_2b_3x3", 64, (3, 3)))
        x = _conv(x, "Conv2d_3b_1x1", 80)
        x = _halve(_conv(x, "Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"))
        for letter, pool in zip("bcd", (32, 64, 64), strict=True):
            x = BlockA(pool, name=f"Mixed_5{letter}")(x)
        x = BlockB(name="Mixed_6a")(x)
        for letter, channels in zip("bcde", (128, 160, 160, 192), strict=True):
            x = BlockC(channels, name=f"Mixed_6{letter}")(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(name="Mixed_7b")(x)
        x = BlockE(max_pool=True, name="Mixed_7c")(x)
        features = x.mean((1, 2))
        return features, nn.Dense(1008, use_bias=False, name="fc")(features)
