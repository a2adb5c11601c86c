"""A U-Net with attention to text at chosen levels (arXiv 2006.11239, 2105.05233 and 2112.10752)."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from t2i_jax.models.attention import Attention, layer_norm
from t2i_jax.models.layers import Dense, Dropout, sine_time
from t2i_jax.models.variants import fields_of
from t2i_jax.text.condition import TextCondition

VARIANTS = {
    "S": dict(width=64, multipliers=(1, 2, 2), blocks=1, attention=(1, 2), heads=4),
    "B": dict(width=128, multipliers=(1, 2, 3, 4), blocks=2, attention=(1, 2, 3), heads=8),
    "L": dict(width=192, multipliers=(1, 2, 3, 4), blocks=2, attention=(1, 2, 3), heads=8),
    "XL": dict(width=320, multipliers=(1, 2, 4, 4), blocks=2, attention=(0, 1, 2), heads=8),
}


def space_to_depth(x, patch: int):
    """[B, H, W, C] -> [B, H / patch, W / patch, patch² C]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // patch, patch, w // patch, patch, c).swapaxes(2, 3)
    return x.reshape(b, h // patch, w // patch, patch * patch * c)


def depth_to_space(x, patch: int):
    """The inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, patch, patch, c // patch**2).swapaxes(2, 3)
    return x.reshape(b, h * patch, w * patch, c // patch**2)


def _group_norm(channels: int, dtype, name: str):
    return nn.GroupNorm(num_groups=math.gcd(32, channels), epsilon=1e-6, dtype=dtype, name=name)


class ResBlock(nn.Module):
    """Two 3x3 convolutions; the condition [B, D] scales and shifts the norm between them. x [B, H, W, C]."""

    channels: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x, condition, keys):
        y = nn.silu(_group_norm(x.shape[-1], self.dtype, "norm_in")(x))
        y = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="conv_in")(y)
        modulation = Dense(2 * self.channels, dtype=self.dtype, name="modulation")(condition)
        scale, shift = jnp.split(modulation[:, None, None], 2, axis=-1)
        y = nn.silu(_group_norm(self.channels, self.dtype, "norm_out")(y) * (1 + scale) + shift)
        y = Dropout(self.dropout, name="dropout")(y, keys)
        y = nn.Conv(self.channels, (3, 3), kernel_init=nn.initializers.zeros, dtype=self.dtype, name="conv_out")(y)
        if x.shape[-1] != self.channels:
            x = Dense(self.channels, dtype=self.dtype, name="skip")(x)
        return x + y


class TransformerBlock(nn.Module):
    """Self-attention over the cells of x [B, H, W, C], attention to the text unless it is None, and a GELU network."""

    heads: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x, text, mask, keys):
        channels = x.shape[-1]
        h = x.reshape(x.shape[0], -1, channels)

        def add(h, branch, name):
            y = branch(layer_norm(h).astype(self.dtype))
            return h + Dropout(self.dropout, name=f"{name}_dropout")(y, keys)

        def mlp(y):
            y = nn.gelu(Dense(4 * channels, dtype=self.dtype, name="mlp_in")(y))
            return Dense(channels, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="mlp_out")(y)

        self_attention = Attention(self.heads, dtype=self.dtype, name="attention")
        h = add(h, lambda y: self_attention(y)[0], "attention")
        if text is not None:
            cross_attention = Attention(self.heads, dtype=self.dtype, name="cross_attention")
            h = add(h, lambda y: cross_attention(y, text, mask)[0], "cross_attention")
        return add(h, mlp, "mlp").reshape(x.shape)


class UNet(nn.Module):
    """A denoising U-Net.

    Call with x float [B, H, W, C], t [B] in [0, 1], text: TextCondition and, for dropout, keys [B]; gives float32
    [B, H, W, C]. Raises ValueError if H or W is not a multiple of patch 2^(levels - 1).

    multipliers: channels of each level over `width`.   blocks: residual blocks a level, on the way down and up.
    attention: the levels (0 is the finest) with a transformer block after each residual block; the middle has one.
    cross_attention: whether those look at the text tokens; time, `text.pooled` and `text.vector` always modulate.
    patch: side of the square of pixels that the first layer takes as channels (space to depth).
    dtype: of the computation; parameters and norms are float32. remat: recompute blocks in the backward pass.
    """

    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 1
    attention: tuple[int, ...] = (1, 2)
    heads: int = 4
    cross_attention: bool = True
    patch: int = 1
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x, t, text: TextCondition, keys=None):
        levels, channels = len(self.multipliers), x.shape[-1]
        multiple = self.patch * 2 ** (levels - 1)
        if x.shape[1] % multiple or x.shape[2] % multiple:
            raise ValueError(
                f"an image of {x.shape[1]} x {x.shape[2]} cannot be halved: with patch {self.patch} and {levels}"
                f" levels, its sides must be multiples of {multiple}"
            )

        def dense(features, name):
            return Dense(features, dtype=self.dtype, name=name)

        condition = dense(4 * self.width, "time_out")(nn.silu(dense(4 * self.width, "time_in")(sine_time(t, self.width))))
        condition = condition + dense(4 * self.width, "pooled")(text.pooled)
        if text.vector is not None:
            condition = condition + dense(4 * self.width, "vector")(text.vector)
        condition = nn.silu(condition)
        words = text.sequence.astype(self.dtype) if self.cross_attention else None

        residual, transformer = (nn.remat(m) if self.remat else m for m in (ResBlock, TransformerBlock))

        def block(x, level, name, attention):
            x = residual(self.width * self.multipliers[level], self.dropout, self.dtype, name=name)(x, condition, keys)
            if attention:
                attend = transformer(self.heads, self.dropout, self.dtype, name=f"{name}_transformer")
                x = attend(x, words, text.mask, keys)
            return x

        x = space_to_depth(x, self.patch)
        x = nn.Conv(self.width * self.multipliers[0], (3, 3), dtype=self.dtype, name="conv_in")(x)
        skips = []
        for level in range(levels):
            for i in range(self.blocks):
                x = block(x, level, f"down_{level}_{i}", level in self.attention)
                skips.append(x)
            if level < levels - 1:
                # As a strided convolution, but its gradient is a matrix product, which CPUs do better.
                x = dense(x.shape[-1], f"down_{level}")(space_to_depth(x, 2))
        x = block(x, levels - 1, "middle_0", True)
        x = block(x, levels - 1, "middle_1", False)
        for level in reversed(range(levels)):
            for i in range(self.blocks):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = block(x, level, f"up_{level}_{i}", level in self.attention)
            if level > 0:
                x = depth_to_space(dense(4 * self.width * self.multipliers[level - 1], f"up_{level}")(x), 2)
        x = nn.silu(_group_norm(x.shape[-1], self.dtype, "norm_out")(x))
        conv = nn.Conv(self.patch**2 * channels, (3, 3), kernel_init=nn.initializers.zeros, dtype=self.dtype, name="conv_out")
        return depth_to_space(conv(x), self.patch).astype(jnp.float32)


def make(config) -> UNet:
    """The U-Net of `config.model`: the fields of UNet, and `variant` for a row of VARIANTS."""
    return UNet(**fields_of(config, VARIANTS))
