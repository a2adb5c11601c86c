"""The convolutional autoencoder of VQGAN (arXiv 2012.09841) and of latent diffusion (arXiv 2112.10752)."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from t2i_jax.models.attention import Attention
from t2i_jax.models.layers import Dense
from t2i_jax.models.unet import depth_to_space, space_to_depth

RESAMPLE = ("conv", "fold")

VARIANTS = {
    # Stable Diffusion's VAE (4 channels), and that of its third version (16)
    "SD": dict(width=128, multipliers=(1, 2, 4, 4), blocks=2, project=True),
    "SD3": dict(width=128, multipliers=(1, 2, 4, 4), blocks=2),
    # VQGAN with a sixteenth of the side, 256 channels of codes (arXiv 2012.09841, table 7)
    "VQGAN-f16": dict(width=128, multipliers=(1, 1, 2, 2, 4), blocks=2, attention=(4,), project=True),
}


class _Net(nn.Module):
    """Fields of both networks.

    features: channels of what it gives.   multipliers: channels of each level over `width`, the finest first.
    blocks: residual blocks a level of the encoder; the decoder has one more.
    attention: the levels with attention after each block.   middle_attention: between the two blocks in the middle.
    patch: side of the square of pixels that the finest level takes as channels (space to depth).
    resample: how levels halve and double the sides, one of RESAMPLE: "conv", as published (3x3 of stride 2; nearest
        neighbours, then 3x3), or "fold", space to depth and a product, a fraction of the cost on CPU.
    project: a 1x1 convolution on the encoder's last layer, and one before the decoder's first.
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
        return self.width * self.multipliers[level]

    def conv(self, features: int, name: str):
        return nn.Conv(features, (3, 3), dtype=self.dtype, name=name)

    def dense(self, features: int, name: str):
        return Dense(features, dtype=self.dtype, name=name)

    def block(self, x, level: int, attend: bool, name: str):
        x = ResBlock(self.channels(level), self.dtype, name=name)(x)
        return AttentionBlock(self.dtype, name=f"{name}_attention")(x) if attend else x

    def middle(self, x):
        x = self.block(x, -1, self.middle_attention, "middle_0")
        return self.block(x, -1, False, "middle_1")

    def last(self, x, features: int):
        return self.conv(features, "conv_out")(nn.silu(group_norm(x, self.dtype, "norm_out")))


class Encoder(_Net):
    """x float [B, H, W, 3] in [-1, 1] -> float32 [B, H / f, W / f, features], f being `factor`."""

    @nn.compact
    def __call__(self, x):
        x = self.conv(self.channels(0), "conv_in")(space_to_depth(x.astype(self.dtype), self.patch))
        for level in range(len(self.multipliers)):
            for i in range(self.blocks):
                x = self.block(x, level, level in self.attention, f"down_{level}_{i}")
            if level < len(self.multipliers) - 1:
                if self.resample == "fold":
                    x = self.dense(x.shape[-1], f"down_{level}")(space_to_depth(x, 2))
                else:
                    halve = nn.Conv(x.shape[-1], (3, 3), 2, ((0, 1), (0, 1)), dtype=self.dtype, name=f"down_{level}")
                    x = halve(x)
        x = self.last(self.middle(x), self.features)
        return (self.dense(self.features, "project")(x) if self.project else x).astype(jnp.float32)


class Decoder(_Net):
    """z float [B, h, w, D] -> pictures float32 [B, f h, f w, features], about [-1, 1]; f as of the encoder.

    The layer "conv_out" is the last: what follows only moves its numbers.
    """

    features: int = 3

    @nn.compact
    def __call__(self, z):
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
        return depth_to_space(self.last(x, self.patch**2 * self.features), self.patch).astype(jnp.float32)


class ResBlock(nn.Module):
    """x [B, H, W, C] -> [B, H, W, channels]: x and two 3x3 convolutions of it, each after a norm and silu."""

    channels: int
    dtype: Any

    @nn.compact
    def __call__(self, x):
        y = x
        for place in ("in", "out"):
            y = nn.silu(group_norm(y, self.dtype, f"norm_{place}"))
            y = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name=f"conv_{place}")(y)
        return y + (x if x.shape[-1] == self.channels else Dense(self.channels, dtype=self.dtype, name="skip")(x))


class AttentionBlock(nn.Module):
    """x [B, H, W, C] plus what each cell finds by looking at all, with one head."""

    dtype: Any

    @nn.compact
    def __call__(self, x):
        cells = group_norm(x, self.dtype, "norm").reshape(x.shape[0], -1, x.shape[-1])
        y, _ = Attention(1, qk_norm=False, dtype=self.dtype, name="attention")(cells)
        return x + y.reshape(x.shape)


def group_norm(x, dtype, name: str):
    """GroupNorm (arXiv 1803.08494) over 32 groups, or as many of them as divide the channels."""
    return nn.GroupNorm(math.gcd(32, x.shape[-1]), epsilon=1e-6, dtype=dtype, name=name)(x)


def factor(net: _Net) -> int:
    """How many pixels lie along the side of a cell."""
    return net.patch * 2 ** (len(net.multipliers) - 1)


def check(net: _Net, resolution: int) -> None:
    """ValueError for a way to resample there is not, a level there is not, or a picture that does not divide into cells."""
    if net.resample not in RESAMPLE:
        raise ValueError(f"resample is {net.resample!r}; it can be {', '.join(RESAMPLE)}")
    if wrong := sorted(set(net.attention) - set(range(len(net.multipliers)))):
        raise ValueError(f"attention at level {wrong[0]}: there are {len(net.multipliers)} levels, the finest is 0")
    if resolution % factor(net):
        near = max(round(resolution / factor(net)), 1) * factor(net)
        raise ValueError(
            f"a picture of {resolution} px does not divide into cells of {factor(net)} px (patch {net.patch} and "
            f"{len(net.multipliers)} levels): its side must be a multiple, such as {near}"
        )
