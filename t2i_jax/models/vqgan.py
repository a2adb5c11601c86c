"""The convolutional autoencoder of VQGAN (arXiv 2012.09841) and latent diffusion (2112.10752)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.models.attention import Attention
from t2i_jax.models.layers import Dense, depth_to_space, group_norm, space_to_depth

RESAMPLE = ("conv", "fold")

VARIANTS = {
    # The VAE of Stable Diffusion 1 and 2 (4 channels), and that of version 3 (16 channels)
    "SD": dict(width=128, multipliers=(1, 2, 4, 4), blocks=2, project=True),
    "SD3": dict(width=128, multipliers=(1, 2, 4, 4), blocks=2),
    # VQGAN with cells of 16 pixels and 256 channels (arXiv 2012.09841, table 7)
    "VQGAN-f16": dict(
        width=128, multipliers=(1, 1, 2, 2, 4), blocks=2, attention=(4,), project=True
    ),
}


class _Net(nn.Module):
    """What both networks share: their fields and parts.

    features: channels of the result.
    width: channels of a level whose multiplier is 1.
    multipliers: channels of each level over `width`, the finest level first.
    blocks: residual blocks of each level of the encoder; the decoder has one more per level.
    attention: the levels (0 is the finest) with attention after each block.
    middle_attention: whether there is attention between the two blocks in the middle.
    patch: side of the square of pixels that the finest level takes as channels (space to depth).
    resample: how levels halve and double the sides: "conv", as published (3 x 3 of stride 2;
        nearest neighbours, then 3 x 3), or "fold" (space to depth and a product), which costs a
        fraction of that on CPU.
    project: whether a 1 x 1 convolution follows the encoder's last layer and precedes the decoder's
        first.
    dtype: of the computation; parameters are float32.
    """

    features: int
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    attention: tuple[int, ...] = ()
    middle_attention: bool = True
    patch: int = 1
    resample: str = "conv"
    project: bool = False
    dtype: Any = jnp.float32

    def channels(self, level: int) -> int:
        """Return the number of channels of a level."""
        return self.width * self.multipliers[level]

    def conv(self, features: int, name: str) -> nn.Module:
        """Return a 3 x 3 convolution."""
        return nn.Conv(features, (3, 3), dtype=self.dtype, name=name)

    def dense(self, features: int, name: str) -> nn.Module:
        """Return a 1 x 1 convolution."""
        return Dense(features, dtype=self.dtype, name=name)

    def block(
        self, x: Float[Array, "B H W C"], level: int, attend: bool, name: str
    ) -> Float[Array, "B H W D"]:
        """Apply a residual block and, if `attend`, attention."""
        x = ResBlock(self.channels(level), self.dtype, name=name)(x)
        return AttentionBlock(self.dtype, name=f"{name}_attention")(x) if attend else x

    def middle(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Apply the blocks of the middle."""
        x = self.block(x, -1, self.middle_attention, "middle_0")
        return self.block(x, -1, False, "middle_1")

    def last(self, x: Float[Array, "B H W C"], features: int) -> Float[Array, "B H W {features}"]:
        """Apply the last norm and convolution."""
        return self.conv(features, "conv_out")(nn.silu(group_norm(x, self.dtype, "norm_out")))


class Encoder(_Net):
    """The encoder, from pictures to cells."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B h w features"]:
        """Return float32, with h = H / f and f = `factor`, of pictures in [-1, 1]."""
        x = self.conv(self.channels(0), "conv_in")(space_to_depth(x.astype(self.dtype), self.patch))
        for level in range(len(self.multipliers)):
            for i in range(self.blocks):
                x = self.block(x, level, level in self.attention, f"down_{level}_{i}")
            if level < len(self.multipliers) - 1:
                if self.resample == "fold":
                    x = self.dense(x.shape[-1], f"down_{level}")(space_to_depth(x, 2))
                else:
                    halve = nn.Conv(
                        x.shape[-1],
                        (3, 3),
                        2,
                        ((0, 1), (0, 1)),
                        dtype=self.dtype,
                        name=f"down_{level}",
                    )
                    x = halve(x)
        x = self.last(self.middle(x), self.features)
        return (self.dense(self.features, "project")(x) if self.project else x).astype(jnp.float32)


class Decoder(_Net):
    """The decoder, from cells to pictures.

    The last layer is "conv_out": what follows only reorders its numbers.
    """

    features: int = 3

    @nn.compact
    def __call__(self, z: Float[Array, "B h w D"]) -> Float[Array, "B H W features"]:
        """Return pictures, float32 and approximately in [-1, 1], with H = h f and f = `factor`."""
        x = z.astype(self.dtype)
        x = self.dense(x.shape[-1], "project")(x) if self.project else x
        x = self.middle(self.conv(self.channels(-1), "conv_in")(x))
        for level in reversed(range(len(self.multipliers))):
            for i in range(self.blocks + 1):
                x = self.block(x, level, level in self.attention, f"up_{level}_{i}")
            if level > 0:
                if self.resample == "fold":
                    x = depth_to_space(self.dense(4 * x.shape[-1], f"up_{level}")(x), 2)
                else:
                    x = self.conv(x.shape[-1], f"up_{level}")(x.repeat(2, 1).repeat(2, 2))
        return depth_to_space(self.last(x, self.patch**2 * self.features), self.patch).astype(
            jnp.float32
        )


class ResBlock(nn.Module):
    """A residual branch of two 3 x 3 convolutions, each after a norm and silu.

    channels: of the result.
    dtype: of the computation.
    """

    channels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W channels"]:
        y = x
        for place in ("in", "out"):
            y = nn.silu(group_norm(y, self.dtype, f"norm_{place}"))
            y = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name=f"conv_{place}")(y)
        return y + (
            x
            if x.shape[-1] == self.channels
            else Dense(self.channels, dtype=self.dtype, name="skip")(x)
        )


class AttentionBlock(nn.Module):
    """A residual branch of self-attention over the cells, with one head.

    dtype: of the computation.
    """

    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        cells = group_norm(x, self.dtype, "norm").reshape(x.shape[0], -1, x.shape[-1])
        y, _ = Attention(1, qk_norm=False, dtype=self.dtype, name="attention")(cells)
        return x + y.reshape(x.shape)


def factor(net: _Net) -> int:
    """Return the side of a cell in pixels."""
    return net.patch * 2 ** (len(net.multipliers) - 1)


def check(net: _Net, resolution: int) -> None:
    """Raise ValueError for an unknown `resample`, an unknown level, or pictures of a wrong size.

    resolution: side of the pictures in pixels; it must divide into cells.
    """
    if net.resample not in RESAMPLE:
        raise ValueError(f"resample is {net.resample!r}; it can be {', '.join(RESAMPLE)}")
    if wrong := sorted(set(net.attention) - set(range(len(net.multipliers)))):
        raise ValueError(
            f"attention at level {wrong[0]}: there are {len(net.multipliers)} levels, the finest "
            "is 0"
        )
    if resolution % factor(net):
        near = max(round(resolution / factor(net)), 1) * factor(net)
        raise ValueError(
            f"a picture of {resolution} px does not divide into cells of {factor(net)} px (patch "
            f"{net.patch} and {len(net.multipliers)} levels): its side must be a multiple, such as "
            f"{near}"
        )
