"""The U-Net of Stable Diffusion 1, 2 and XL, as published (arXiv 2112.10752 and 2307.01952)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.text import TextCondition
from t2i_jax.models.attention import Attention
from t2i_jax.models.layers import Dense, group_norm, sine_features
from t2i_jax.models.recompute import recomputed

TIMESTEPS = 1000  # of training
NORM_EPSILON = 1e-5  # of the norms, but for those before attention

VARIANTS = {
    # 859,520,964, 859,535,364, 865,910,724 and 865,925,124 parameters
    "SD1": {},
    "SD1-inpainting": dict(in_channels=9),
    "SD2": dict(heads=(5, 10, 20, 20), text_width=1024, linear_projection=True),
    "SD2-inpainting": dict(
        in_channels=9, heads=(5, 10, 20, 20), text_width=1024, linear_projection=True
    ),
    # 2,567,463,684 parameters; the pooled text has 1280 channels, and there are 6 numbers
    "SDXL": dict(
        channels=(320, 640, 1280),
        depths=(0, 2, 10),
        middle_depth=10,
        heads=(5, 10, 20),
        text_width=2048,
        added_width=1280 + 6 * 256,
        linear_projection=True,
    ),
    # 2,259,526,660 parameters; 5 numbers
    "SDXL-refiner": dict(
        channels=(384, 768, 1536, 1536),
        depths=(0, 4, 4, 0),
        middle_depth=4,
        heads=(6, 12, 24, 24),
        text_width=1280,
        added_width=1280 + 5 * 256,
        linear_projection=True,
    ),
}


class ResBlock(nn.Module):
    """A residual branch of two 3 x 3 convolutions; the time is added between them.

    channels: of the result.
    dtype: of the computation.
    """

    channels: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], time: Float[Array, "B D"]
    ) -> Float[Array, "B H W channels"]:
        def conv(y, place):
            y = nn.silu(group_norm(y, self.dtype, f"norm_{place}", NORM_EPSILON))
            return nn.Conv(self.channels, (3, 3), dtype=self.dtype, name=f"conv_{place}")(y)

        def dense(y, name):
            return Dense(self.channels, dtype=self.dtype, name=name)(y)

        y = conv(conv(x, "in") + dense(time, "time")[:, None, None], "out")
        return y + (x if x.shape[-1] == self.channels else dense(x, "skip"))


class TransformerBlock(nn.Module):
    """Self-attention, attention to the text, and a GEGLU network (arXiv 2002.05202, section 2).

    Each is a residual branch over its normalised input.

    heads: attention heads.
    dtype: of the computation.
    """

    heads: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "B S C"], text: Float[Array, "B L D"]
    ) -> Float[Array, "B S C"]:
        def norm(name):
            return nn.LayerNorm(1e-5, use_fast_variance=False, dtype=self.dtype, name=name)(x)

        def attention(name):
            return Attention(
                self.heads, qk_norm=False, input_bias=False, dtype=self.dtype, name=name
            )

        x = x + attention("attention")(norm("attention_norm"))[0]
        x = x + attention("cross_attention")(norm("cross_attention_norm"), text)[0]
        hidden = Dense(8 * x.shape[-1], dtype=self.dtype, name="mlp_in")(norm("mlp_norm"))
        y, gate = jnp.split(hidden, 2, axis=-1)
        y = y * nn.gelu(gate, approximate=False)
        return x + Dense(x.shape[-1], dtype=self.dtype, name="mlp_out")(y)


class Transformer(nn.Module):
    """A residual branch: transformer blocks over the cells, between two linear layers.

    depth: number of blocks.
    heads: attention heads per block.
    dtype: of the computation.
    remat: what the backward pass computes again (models/recompute.py).
    """

    depth: int
    heads: int
    dtype: Any
    remat: str = "none"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], text: Float[Array, "B L D"]
    ) -> Float[Array, "B H W C"]:
        def dense(y, name):
            return Dense(x.shape[-1], dtype=self.dtype, name=name)(y)

        cells = group_norm(x, self.dtype, "norm").reshape(x.shape[0], -1, x.shape[-1])
        y = dense(cells, "project_in")
        block = recomputed(TransformerBlock, self.remat)
        for i in range(self.depth):
            y = block(self.heads, self.dtype, name=f"block_{i}")(y, text)
        return x + dense(y, "project_out").reshape(x.shape)


class UNet2DConditionModel(nn.Module):
    """A denoising U-Net with attention to the text. The defaults are those of Stable Diffusion 1.

    in_channels: of the input: 4 of the latents, or 9 with those of a mask and of what it hides.
    out_channels: of the prediction.
    channels: of each level, the finest level first.
    blocks: residual blocks of each level on the way down; there is one more on the way up.
    depths: transformer blocks after each residual block of a level.
    middle_depth: transformer blocks in the middle.
    heads: attention heads of each level; the middle has those of the coarsest.
    text_width: channels of a text token.
    added_width: inputs of the network for the pooled text and `TextCondition.vector` together, or 0
        if there is no such network.
    number_width: channels for each number of `TextCondition.vector`.
    linear_projection: whether published files store the first and last layer of a transformer as
        matrices (Stable Diffusion 2 and XL) or as 1 x 1 convolutions. The computation is the same.
    dtype: of the computation; parameters are float32.
    remat: what the backward pass computes again (models/recompute.py).
    """

    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    blocks: int = 2
    depths: tuple[int, ...] = (1, 1, 1, 0)
    middle_depth: int = 1
    heads: tuple[int, ...] = (8, 8, 8, 8)
    text_width: int = 768
    added_width: int = 0
    number_width: int = 256
    linear_projection: bool = False
    dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w in_channels"], t: Float[Array, "B"], text: TextCondition
    ) -> Float[Array, "B h w out_channels"]:
        """Return the prediction for noisy latents x at times t in [0, 1], in float32.

        t: the timestep of the published network is 1000 t - 1: 999 at t = 1, 0 at t = 0.001.
        text: `sequence` is attended to; its mask is ignored, since the networks were trained to
            attend to padding too. With `added_width`, `pooled` and `vector` are added to the time.
            The numbers of SDXL are the original (height, width), the (top, left) of the crop, and
            the target (height, width), in pixels.
        Raises ValueError if x, the text or the numbers do not fit.
        """
        self._check(x, text)
        time = self._embed_time(t, text)
        words = text.sequence.astype(self.dtype)
        levels = len(self.channels)

        residual = recomputed(ResBlock, self.remat)

        def block(x, level, depth, name):
            x = residual(self.channels[level], self.dtype, name=name)(x, time)
            if not depth:
                return x
            name = f"{name}_transformer"
            heads = self.heads[level]
            return Transformer(depth, heads, self.dtype, self.remat, name=name)(x, words)

        def conv(x, channels, name, stride=1):
            layer = nn.Conv(channels, (3, 3), stride, 1, dtype=self.dtype, name=name)
            return layer(x)

        x = conv(x, self.channels[0], "conv_in")
        skips = [x]
        for level in range(levels):
            for i in range(self.blocks):
                x = block(x, level, self.depths[level], f"down_{level}_{i}")
                skips.append(x)
            if level < levels - 1:
                x = conv(x, x.shape[-1], f"down_{level}", stride=2)
                skips.append(x)
        x = block(x, levels - 1, self.middle_depth, "middle_0")
        x = block(x, levels - 1, 0, "middle_1")
        for level in reversed(range(levels)):
            for i in range(self.blocks + 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = block(x, level, self.depths[level], f"up_{level}_{i}")
            if level > 0:
                height, width = skips[-1].shape[1:3]  # odd sides were rounded up on the way down
                x = x.repeat(2, 1).repeat(2, 2)[:, :height, :width]
                x = conv(x, x.shape[-1], f"up_{level}")
        x = nn.silu(group_norm(x, self.dtype, "norm_out", NORM_EPSILON))
        return conv(x, self.out_channels, "conv_out").astype(jnp.float32)

    def _embed_time(self, t, text):
        """Return one vector per example for its time and for what is added to it."""

        def network(x, name):
            def dense(x, place):
                return Dense(4 * self.channels[0], dtype=self.dtype, name=f"{name}_{place}")(x)

            return dense(nn.silu(dense(x, "in")), "out")

        timestep = TIMESTEPS * t.astype(jnp.float32) - 1
        y = network(sine_features(timestep, self.channels[0]), "time")
        if self.added_width:
            numbers = sine_features(jnp.asarray(text.vector), self.number_width).reshape(len(y), -1)
            y = y + network(jnp.concatenate([text.pooled, numbers], axis=-1), "added")
        return nn.silu(y)

    def _check(self, x, text):
        """Raise ValueError if the input does not fit the fields."""
        if x.shape[3] != self.in_channels:
            raise ValueError(
                f"latents of shape {(*x.shape[1:],)} do not fit: this U-Net takes "
                f"{self.in_channels} channels"
            )
        if text.sequence.shape[-1] != self.text_width:
            raise ValueError(
                f"text tokens of {text.sequence.shape[-1]} channels do not fit: this U-Net takes "
                f"{self.text_width}"
            )
        if self.added_width:
            pooled = text.pooled.shape[-1]
            numbers = 0 if text.vector is None else text.vector.shape[-1]
            if pooled + numbers * self.number_width != self.added_width:
                raise ValueError(
                    f"a pooled text of {pooled} channels and {numbers} numbers of "
                    f"{self.number_width} channels each do not fit: this U-Net takes "
                    f"{self.added_width} channels (SDXL: 1280, and 6 numbers of 256)"
                )


def param_shapes(net: UNet2DConditionModel) -> Any:
    """Return the parameters of the network as shapes: nothing is computed."""
    side = 2 ** (len(net.channels) - 1)
    numbers, pooled = divmod(net.added_width, net.number_width)  # any that fit
    text = TextCondition(
        jnp.zeros((1, 1, net.text_width)),
        jnp.zeros((1, pooled)),
        jnp.ones((1, 1), bool),
        jnp.zeros((1, numbers)),
    )
    x = jax.ShapeDtypeStruct((1, side, side, net.in_channels), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), x, t, text)["params"]
