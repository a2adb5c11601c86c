"""A U-Net with attention to text at chosen levels (arXiv 2006.11239, 2105.05233 and 2112.10752)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from t2i_jax.core.text import TextCondition
from t2i_jax.models.attention import Attention, layer_norm
from t2i_jax.models.layers import (
    Dense,
    Dropout,
    add_positions,
    depth_to_space,
    group_norm,
    sine_time,
    space_to_depth,
    time_and_text,
)
from t2i_jax.models.recompute import recomputed
from t2i_jax.models.variants import fields_of

VARIANTS = {
    "S": dict(width=64, multipliers=(1, 2, 2), blocks=1, attention=(1, 2), heads=4),
    "B": dict(width=128, multipliers=(1, 2, 3, 4), blocks=2, attention=(1, 2, 3), heads=8),
    "L": dict(width=192, multipliers=(1, 2, 3, 4), blocks=2, attention=(1, 2, 3), heads=8),
    "XL": dict(width=320, multipliers=(1, 2, 4, 4), blocks=2, attention=(0, 1, 2), heads=8),
}


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions; the condition scales and shifts the norm between them.

    channels: of the result.
    dropout: probability of dropping a number in training.
    dtype: of the computation.
    """

    channels: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        condition: Float[Array, "B D"],
        keys: Key[Array, "B"] | None,
    ) -> Float[Array, "B H W channels"]:
        y = nn.silu(group_norm(x, self.dtype, "norm_in"))
        y = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="conv_in")(y)
        modulation = Dense(2 * self.channels, dtype=self.dtype, name="modulation")(condition)
        scale, shift = jnp.split(modulation[:, None, None], 2, axis=-1)
        y = nn.silu(group_norm(y, self.dtype, "norm_out") * (1 + scale) + shift)
        y = Dropout(self.dropout, name="dropout")(y, keys)
        y = nn.Conv(
            self.channels,
            (3, 3),
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
            name="conv_out",
        )(y)
        if x.shape[-1] != self.channels:
            x = Dense(self.channels, dtype=self.dtype, name="skip")(x)
        return x + y


class TransformerBlock(nn.Module):
    """Self-attention over the cells, attention to the text unless it is None, and a GELU network.

    positions: whether the cells know where they are.
    heads: attention heads.
    dropout: probability of dropping a number of a residual branch in training.
    dtype: of the computation.
    """

    heads: int
    dropout: float
    dtype: Any
    positions: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        text: Float[Array, "B L D"] | None,
        mask: Bool[Array, "B L"],
        keys: Key[Array, "B"] | None,
    ) -> Float[Array, "B H W C"]:
        channels = x.shape[-1]
        h = x.reshape(x.shape[0], -1, channels)

        def add(h, branch, name):
            y = branch(layer_norm(h).astype(self.dtype))
            return h + Dropout(self.dropout, name=f"{name}_dropout")(y, keys)

        def mlp(y):
            y = nn.gelu(Dense(4 * channels, dtype=self.dtype, name="mlp_in")(y))
            return Dense(
                channels, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="mlp_out"
            )(y)

        h = add_positions(h, (x.shape[1], x.shape[2])) if self.positions else h
        self_attention = Attention(self.heads, dtype=self.dtype, name="attention")
        h = add(h, lambda y: self_attention(y)[0], "attention")
        if text is not None:
            cross_attention = Attention(self.heads, dtype=self.dtype, name="cross_attention")
            h = add(h, lambda y: cross_attention(y, text, mask)[0], "cross_attention")
        return add(h, mlp, "mlp").reshape(x.shape)


class UNet(nn.Module):
    """A denoising U-Net. Time and text modulate its norms.

    width: channels of the finest level, if its multiplier is 1.
    multipliers: channels of each level over `width`, the finest level first.
    blocks: residual blocks of each level, on the way down and on the way up.
    attention: the levels (0 is the finest) with a transformer block after each residual block; the
        middle always has one.
    heads: attention heads per transformer block.
    cross_attention: whether the transformer blocks attend to the text tokens.
    positions: whether the cells of a transformer block know where they are. Convolutions tell them
        only near the edges.
    patch: side of the square of pixels that the first layer takes as channels (space to depth).
    features: numbers of the result for each pixel; 0: as many as x has.
    dropout: probability of dropping a number of a residual branch in training.
    dtype: of the computation; parameters and norms are float32.
    remat: what the backward pass computes again (models/recompute.py).
    """

    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 1
    attention: tuple[int, ...] = (1, 2)
    heads: int = 4
    cross_attention: bool = True
    positions: bool = False
    patch: int = 1
    features: int = 0
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: str = "none"

    @property
    def text_attention(self) -> str:
        """How the cells attend to the tokens (models/word_attention.py); "" for not at all."""
        return "cross" if self.cross_attention else ""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        t: Float[Array, "B"],
        text: TextCondition,
        keys: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B H W features"]:
        """Return the prediction for noisy x at times t in [0, 1], in float32.

        text: `pooled` and `vector` modulate the norms; `sequence` is for `cross_attention`.
        keys: for dropout; None for no dropout.
        Raises ValueError if H or W is not a multiple of patch * 2^(levels - 1), and for a level in
        `attention` that there is not.
        """
        levels, channels = len(self.multipliers), x.shape[-1]
        if not levels:
            raise ValueError("multipliers is (): a U-Net needs at least one level")
        if unknown := sorted(set(self.attention) - set(range(levels))):
            raise ValueError(
                f"attention at level {unknown[0]}: there are {levels} levels, the finest is 0"
            )
        multiple = self.patch * 2 ** (levels - 1)
        if x.shape[1] % multiple or x.shape[2] % multiple:
            raise ValueError(
                f"an image of {x.shape[1]} x {x.shape[2]} cannot be halved: with patch "
                f"{self.patch} and {levels} levels, its sides must be multiples of {multiple}"
            )

        def dense(features, name):
            return Dense(features, dtype=self.dtype, name=name)

        condition = time_and_text(sine_time(t, self.width), text, 4 * self.width, self.dtype)
        words = text.sequence.astype(self.dtype) if self.cross_attention else None

        residual = recomputed(ResBlock, self.remat)
        transformer = recomputed(TransformerBlock, self.remat)

        def block(x, level, name, attention):
            x = residual(self.width * self.multipliers[level], self.dropout, self.dtype, name=name)(
                x, condition, keys
            )
            if attention:
                own = (self.heads, self.dropout, self.dtype, self.positions)
                attend = transformer(*own, name=f"{name}_transformer")
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
                # Equivalent to a strided convolution, but its gradient is a matrix product. That is
                # faster on CPU.
                x = dense(x.shape[-1], f"down_{level}")(space_to_depth(x, 2))
        x = block(x, levels - 1, "middle_0", True)
        x = block(x, levels - 1, "middle_1", False)
        for level in reversed(range(levels)):
            for i in range(self.blocks):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = block(x, level, f"up_{level}_{i}", level in self.attention)
            if level > 0:
                x = depth_to_space(
                    dense(4 * self.width * self.multipliers[level - 1], f"up_{level}")(x), 2
                )
        x = nn.silu(group_norm(x, self.dtype, "norm_out"))
        conv = nn.Conv(
            self.patch**2 * (self.features or channels),
            (3, 3),
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
            name="conv_out",
        )
        return depth_to_space(conv(x), self.patch).astype(jnp.float32)


def make(config) -> UNet:
    """Return the U-Net of `config.model`: the fields of UNet, and `variant`, a name of VARIANTS."""
    return UNet(**fields_of(config, VARIANTS))
