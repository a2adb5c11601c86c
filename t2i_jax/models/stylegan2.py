"""StyleGAN2 (arXiv 1912.04958), conditioned on text.

The caption enters the mapping network, and the discriminator by a projection (arXiv 1802.05637), as
arXiv 2006.06676 does for classes.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key

from t2i_jax.core.text import TextCondition
from t2i_jax.core.types import AnyArray
from t2i_jax.models.layers import path_salt
from t2i_jax.models.resampling import (
    EPSILON,
    conv,
    conv_down,
    conv_up,
    downsample,
    modulated_conv,
    upsample,
)
from t2i_jax.models.variants import fields_of


def minibatch_std(x: Float[AnyArray, "B ..."], axis_name: str | None = None) -> Float[Array, ""]:
    """Return the standard deviation over the batch, as a mean over all features.

    Source: arXiv 1710.10196, section 3.
    axis_name: of pmap, whose devices have parts of the batch; None if x is the whole batch.
    """

    def mean(x):
        return lax.pmean(x.mean(0), axis_name) if axis_name else x.mean(0)

    return jnp.sqrt(mean(jnp.square(x - mean(x))) + EPSILON).mean()


def normalize_rms(x: Float[AnyArray, "B D"]) -> Float[Array, "B D"]:
    """Return x divided by its root mean square."""
    return jnp.asarray(x) * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + EPSILON)


def activation(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return leaky ReLU times sqrt(2), which keeps the size of a random signal."""
    return nn.leaky_relu(x, 0.2) * 2**0.5


def _kernel(module: nn.Module, shape, rate: float = 1.0):
    """Return a kernel with equalised learning rate (arXiv 1710.10196, section 4.1), times `rate`.

    The last axis of `shape` is that of the output channels.
    """
    kernel = module.param("kernel", nn.initializers.normal(1.0 / rate), shape)
    return kernel * (rate / np.prod(shape[:-1]) ** 0.5)


class Linear(nn.Module):
    """A dense layer with equalised learning rate.

    features: channels of the result.
    bias: the initial value of the bias; None for no bias.
    rate: a factor of the learning rate.
    """

    features: int
    bias: float | None = 0.0
    rate: float = 1.0

    @nn.compact
    def __call__(self, x: Float[AnyArray, "*batch D"]) -> Float[Array, "*batch features"]:
        x = jnp.asarray(x) @ _kernel(self, (x.shape[-1], self.features), self.rate)
        if self.bias is None:
            return x
        return x + self.rate * self.param(
            "bias", nn.initializers.constant(self.bias), (self.features,)
        )


class Conv(nn.Module):
    """A convolution with equalised learning rate, bias and activation.

    features: channels of the result.
    size: side of the kernel.
    operation: `conv` or `conv_down`.
    """

    features: int
    size: int = 3
    operation: Any = conv

    @nn.compact
    def __call__(self, x: Float[AnyArray, "B H W I"]) -> Float[Array, "B h w features"]:
        kernel = _kernel(self, (self.size, self.size, x.shape[-1], self.features))
        return activation(
            self.operation(x, kernel) + self.param("bias", nn.initializers.zeros, (self.features,))
        )


class Mapping(nn.Module):
    """The mapping network, of a pooled text and, unless it is None, random numbers z.

    Its layers have a learning rate of 0.01.

    width: channels of the result.
    layers: number of layers.
    """

    width: int
    layers: int

    @nn.compact
    def __call__(
        self, z: Float[AnyArray, "B Z"] | None, pooled: Float[AnyArray, "B P"]
    ) -> Float[Array, "B width"]:
        # No bias: without a text, the bias would be all there is, and the gradient of
        # `normalize_rms` would explode.
        x = normalize_rms(Linear(self.width, bias=None, name="text")(pooled))
        if z is not None:
            x = jnp.concatenate([normalize_rms(z), x], axis=-1)
        for i in range(self.layers):
            x = activation(Linear(self.width, rate=0.01, name=f"layer_{i}")(x))
        return x


class StyledConv(nn.Module):
    """A convolution that is modulated by w, then noise of a learned strength, bias and activation.

    features: channels of the result.
    operation: `conv` or `conv_up`.
    """

    features: int
    operation: Any = conv

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W I"], w: Float[AnyArray, "B D"], keys: Key[Array, "B"]
    ) -> Float[Array, "B h w features"]:
        """Apply the layer. `keys` are for the noise."""
        style = Linear(x.shape[-1], bias=1.0, name="style")(w)
        x = modulated_conv(
            x, _kernel(self, (3, 3, x.shape[-1], self.features)), style, self.operation
        )
        salt = path_salt(self)
        noise = jax.vmap(
            lambda key: jax.random.normal(jax.random.fold_in(key, salt), (*x.shape[1:3], 1))
        )(keys)
        x = x + noise * self.param("noise", nn.initializers.zeros, ())
        return activation(x + self.param("bias", nn.initializers.zeros, (self.features,)))


class ToPicture(nn.Module):
    """A 1 x 1 convolution from features to a picture: modulated by w, not demodulated.

    channels: of the picture.
    """

    channels: int

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W I"], w: Float[AnyArray, "B D"]
    ) -> Float[Array, "B H W channels"]:
        style = Linear(x.shape[-1], bias=1.0, name="style")(w)
        x = modulated_conv(
            x, _kernel(self, (1, 1, x.shape[-1], self.channels)), style, demodulate=False
        )
        return x + self.param("bias", nn.initializers.zeros, (self.channels,))


def _features(side: int, base_channels: int, max_channels: int) -> int:
    return min(base_channels // side, max_channels)


def _sides(resolution: int) -> list[int]:
    """Return [4, 8, 16, ..., resolution]."""
    return [4 * 2**i for i in range((resolution // 4).bit_length())]


class Synthesis(nn.Module):
    """The synthesis network: a learned constant, then up to two convolutions per side.

    The picture is the sum of a picture of each side. The fields are those of Generator.
    """

    resolution: int
    channels: int
    base_channels: int
    max_channels: int

    @nn.compact
    def __call__(
        self, w: Float[AnyArray, "B layers D"], keys: Key[Array, "B"]
    ) -> Float[Array, "B R R channels"]:
        """Return pictures of w, which has one row per layer. `keys` are for the noise."""
        for i, side in enumerate(_sides(self.resolution)):
            features = _features(side, self.base_channels, self.max_channels)
            if i == 0:
                x = self.param("constant", nn.initializers.normal(1.0), (side, side, features))
                x, picture = jnp.broadcast_to(x, (len(w), *x.shape)), 0.0
            else:
                # The row of w that made the last picture also begins the next side.
                x = StyledConv(features, conv_up, name=f"up_{side}")(x, w[:, 2 * i - 1], keys)
                picture = upsample(picture)
            x = StyledConv(features, name=f"conv_{side}")(x, w[:, 2 * i], keys)
            picture = picture + ToPicture(self.channels, name=f"picture_{side}")(x, w[:, 2 * i + 1])
        return picture


class Generator(nn.Module):
    """A generator of pictures [B, R, R, channels] from random numbers z and a text.

    The pictures are approximately in [-1, 1], without a bound. The text acts through w alone, and
    the network is the same in training and afterwards.

    resolution: R, the side of the pictures in pixels.
    channels: of the pictures: 3 (colour) or 1 (grey).
    latent: number of random numbers per picture.
    width: channels of w.
    mapping_layers: layers of the mapping network.
    base_channels: this, divided by the side of a layer, is the number of channels of that layer.
    max_channels: upper limit of the number of channels.
    """

    resolution: int
    channels: int = 3
    latent: int = 128
    width: int = 128
    mapping_layers: int = 4
    base_channels: int = 1024
    max_channels: int = 128

    def setup(self):
        self.mapping = Mapping(self.width, self.mapping_layers)
        self.synthesis = Synthesis(
            self.resolution, self.channels, self.base_channels, self.max_channels
        )

    def map(self, z: Float[AnyArray, "B Z"], text: TextCondition) -> Float[Array, "B layers width"]:
        """Return w: the same row for each of the 2 log2(R) - 2 layers.

        To mix the styles of two pictures, mix rows of their w.
        """
        w = self.mapping(z, text.pooled)
        return jnp.broadcast_to(w[:, None], (len(w), 2 * len(_sides(self.resolution)), self.width))

    def synthesize(
        self,
        w: Float[AnyArray, "B layers width"],
        text: TextCondition,
        keys: Key[Array, "B"],
        train: bool,
    ) -> Float[Array, "B R R channels"]:
        """Return the pictures of w. `keys` are for the noise."""
        return self.synthesis(w, keys)

    def __call__(
        self, z: Float[AnyArray, "B Z"], text: TextCondition, keys: Key[Array, "B"], train: bool
    ) -> Float[Array, "B R R channels"]:
        """Return pictures. `keys` are for the noise."""
        return self.synthesize(self.map(z, text), text, keys, train)


class Discriminator(nn.Module):
    """A discriminator of pictures with a text.

    mapping_layers: layers of the mapping network of the text.
    base_channels: this, divided by the side of a layer, is the number of channels of that layer.
    max_channels: upper limit of the number of channels.
    axis_name: of pmap, for the standard deviation over the batch of all devices; or None.
    """

    mapping_layers: int
    base_channels: int
    max_channels: int
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B R R channels"], text: TextCondition, train: bool
    ) -> tuple[Float[Array, "B"], Float[Array, "B D"]]:
        """Return (logits, features of the last layer)."""
        sides = _sides(x.shape[1])
        width = {side: _features(side, self.base_channels, self.max_channels) for side in sides}
        x = Conv(width[sides[-1]], 1, name="from_picture")(x)
        for side in reversed(sides[1:]):
            y = Conv(width[side], name=f"conv_{side}")(x)
            y = Conv(width[side // 2], operation=conv_down, name=f"down_{side}")(y)
            x = (
                y + Linear(width[side // 2], bias=None, name=f"skip_{side}")(downsample(x))
            ) / 2**0.5
        spread = jnp.broadcast_to(minibatch_std(x, self.axis_name), (*x.shape[:3], 1))
        x = Conv(width[4], name="conv_4")(jnp.concatenate([x, spread], axis=-1))
        features = activation(Linear(width[4], name="whole")(x.reshape(len(x), -1)))
        mapped = Mapping(width[4], self.mapping_layers, name="mapping")(None, text.pooled)
        match = (features * mapped).sum(-1)
        return Linear(1, name="logit")(features)[:, 0] + match / width[4] ** 0.5, features


def make_players(
    config, resolution: int, axis_name: str | None = None
) -> tuple[Generator, Discriminator]:
    """Return both players of `config.model`: the fields of Generator.

    Raises ValueError for a resolution that is not 8, 16, 32, 64, ..., and for a smaller number of
    base_channels.
    """
    if resolution < 8 or resolution.bit_count() > 1:
        near = max(8, 2 ** round(np.log2(max(resolution, 1))))
        raise ValueError(
            f"data.resolution {resolution}: it can be 8, 16, 32, 64, ... (4 doubled), the nearest "
            f"is {near}"
        )
    generator = Generator(resolution, **fields_of(config, {}))
    if generator.base_channels < resolution:
        raise ValueError(
            f"model.base_channels {generator.base_channels} over the side {resolution} leaves no "
            "channel"
        )
    shared = {
        name: getattr(generator, name)
        for name in ("mapping_layers", "base_channels", "max_channels")
    }
    return generator, Discriminator(axis_name=axis_name, **shared)
