"""StyleGAN2 (arXiv 1912.04958), hearing a sentence in the mapping network and by a projection in the discriminator
(arXiv 1802.05637, as 2006.06676 does for classes).

Convolutions that resample are one plain 3 x 3 convolution on the coarser grid: the paper's kernel and its FIR filter are
first convolved with one another, and the pixels of a 2 x 2 square are channels. The results are the same. It multiplies four
times as much as a strided convolution, but XLA on CPU takes twice as long for R1 and path lengths with those.
"""

import zlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from t2i_jax.models.unet import depth_to_space, space_to_depth
from t2i_jax.models.variants import fields_of
from t2i_jax.text.condition import TextCondition

FIR = np.array([1, 3, 3, 1], np.float32) / 8
# Convolving three taps with FIR as a matrix [6, 3].
SPREAD = np.stack([np.convolve(tap, FIR) for tap in np.eye(3, dtype=np.float32)], axis=1)


def upsample(x):
    """[B, H, W, C] -> [B, 2 H, 2 W, C]: zeros between the pixels, then FIR in both directions with gain 4."""
    for axis in (1, 2):
        before, after = _neighbours(x, x, axis)
        x = jnp.stack([before + 3 * x, 3 * x + after], axis + 1) / 4
        x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return x


def downsample(x):
    """[B, H, W, C] -> [B, H / 2, W / 2, C]: FIR in both directions, then every second pixel."""
    for axis in (1, 2):
        pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
        even, odd = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
        before, after = _neighbours(odd, even, axis)
        x = (before + 3 * even + 3 * odd + after) / 8
    return x


def _neighbours(x, y, axis: int):
    """(x one place on, y one place back) along the axis, with zeros outside the picture."""
    pad = [(0, 0)] * x.ndim
    pad[axis] = (1, 1)
    size = x.shape[axis]
    return lax.slice_in_dim(jnp.pad(x, pad), 0, size, axis=axis), lax.slice_in_dim(jnp.pad(y, pad), 2, size + 2, axis=axis)


def conv(x, kernel):
    """x [B, H, W, I] with kernel [K, K, I, O], K odd, zeros outside the picture."""
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def conv_up(x, kernel):
    """[B, H, W, I] -> [B, 2 H, 2 W, O]: zeros between the pixels, the kernel [3, 3, I, O], then FIR with gain 4."""
    *_, i, o = kernel.shape
    # Pixel 2 n + a of the result sees x[n - 1 .. n + 1] through taps 1 - a, 3 - a and 5 - a.
    taps = 4 * _spread(kernel).reshape(3, 2, 3, 2, i, o)[:, ::-1, :, ::-1]
    return depth_to_space(conv(x, taps.transpose(0, 2, 4, 1, 3, 5).reshape(3, 3, i, 4 * o)), 2)


def conv_down(x, kernel):
    """[B, H, W, I] -> [B, H / 2, W / 2, O]: FIR, then the kernel [3, 3, I, O] with stride 2."""
    *_, i, o = kernel.shape
    taps = _spread(kernel).reshape(3, 2, 3, 2, i, o)
    return conv(space_to_depth(x, 2), taps.transpose(0, 2, 1, 3, 4, 5).reshape(3, 3, 4 * i, o))


def _spread(kernel):
    """The kernel [3, 3, I, O] convolved with FIR in both directions, [6, 6, I, O]."""
    return jnp.einsum("pt,qs,tsio->pqio", SPREAD, SPREAD, kernel)


def modulated_conv(x, kernel, style, operation=conv, demodulate=True):
    """`operation` with the kernel [K, K, I, O] scaled by style [B, I] and demodulated (arXiv 1912.04958, equations 1 and 3).

    Scaling the weights of an input or of an output is the same as scaling that input or that output, so that one kernel
    serves the batch: kernels of their own for each example would need a grouped convolution, which is far slower.
    """
    y = operation(x * style[:, None, None], kernel)
    if not demodulate:
        return y
    squares = jnp.square(style) @ jnp.square(kernel).sum((0, 1))
    return y * lax.rsqrt(squares + 1e-8)[:, None, None]


def minibatch_std(x, axis_name: str | None = None):
    """The standard deviation over the batch of x [B, ...], averaged over all features: [] (arXiv 1710.10196, section 3).

    The batch is that of all devices of the pmap axis `axis_name`; None: x is all of it.
    """

    def mean(x):
        return lax.pmean(x.mean(0), axis_name) if axis_name else x.mean(0)

    return jnp.sqrt(mean(jnp.square(x - mean(x))) + 1e-8).mean()


def unit(x):
    """x [B, D] over its root mean square."""
    return x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-8)


def activation(x):
    """Leaky ReLU, times sqrt(2), which keeps the size of a random signal."""
    return nn.leaky_relu(x, 0.2) * 2**0.5


def _kernel(module: nn.Module, shape, rate: float = 1.0):
    """A kernel with equalised learning rate (arXiv 1710.10196, section 4.1), times `rate`; last the output channels."""
    kernel = module.param("kernel", nn.initializers.normal(1.0 / rate), shape)
    return kernel * (rate / np.prod(shape[:-1]) ** 0.5)


class Linear(nn.Module):
    """A dense layer with equalised learning rate, times `rate`. `bias`: its first value; None: there is no bias."""

    features: int
    bias: float | None = 0.0
    rate: float = 1.0

    @nn.compact
    def __call__(self, x):
        x = x @ _kernel(self, (x.shape[-1], self.features), self.rate)
        if self.bias is None:
            return x
        return x + self.rate * self.param("bias", nn.initializers.constant(self.bias), (self.features,))


class Conv(nn.Module):
    """`operation` (conv, conv_down) with equalised learning rate, bias and activation."""

    features: int
    size: int = 3
    operation: Any = conv

    @nn.compact
    def __call__(self, x):
        kernel = _kernel(self, (self.size, self.size, x.shape[-1], self.features))
        return activation(self.operation(x, kernel) + self.param("bias", nn.initializers.zeros, (self.features,)))


class Mapping(nn.Module):
    """A sentence text.pooled [B, P] and, unless it is None, z [B, Z] -> [B, width]. Layers learn at 0.01 of the rate."""

    width: int
    layers: int

    @nn.compact
    def __call__(self, z, pooled):
        # No bias: where there is no text, a bias would be all there is, and `unit` would blow up its gradient.
        x = unit(Linear(self.width, bias=None, name="text")(pooled))
        if z is not None:
            x = jnp.concatenate([unit(z), x], axis=-1)
        for i in range(self.layers):
            x = activation(Linear(self.width, rate=0.01, name=f"layer_{i}")(x))
        return x


class StyledConv(nn.Module):
    """`operation` (conv, conv_up) modulated by w [B, D], noise from keys [B] with a learned strength, bias and activation."""

    features: int
    operation: Any = conv

    @nn.compact
    def __call__(self, x, w, keys):
        style = Linear(x.shape[-1], bias=1.0, name="style")(w)
        x = modulated_conv(x, _kernel(self, (3, 3, x.shape[-1], self.features)), style, self.operation)
        salt = zlib.crc32("/".join(self.path).encode())
        noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, salt), (*x.shape[1:3], 1)))(keys)
        x = x + noise * self.param("noise", nn.initializers.zeros, ())
        return activation(x + self.param("bias", nn.initializers.zeros, (self.features,)))


class ToPicture(nn.Module):
    """Features -> `channels` of the picture: a 1 x 1 convolution modulated by w [B, D], not demodulated."""

    channels: int

    @nn.compact
    def __call__(self, x, w):
        style = Linear(x.shape[-1], bias=1.0, name="style")(w)
        x = modulated_conv(x, _kernel(self, (1, 1, x.shape[-1], self.channels)), style, demodulate=False)
        return x + self.param("bias", nn.initializers.zeros, (self.channels,))


def _features(side: int, base_channels: int, max_channels: int) -> int:
    return min(base_channels // side, max_channels)


def _sides(resolution: int) -> list[int]:
    """4, 8, 16, ... up to the resolution."""
    return [4 * 2**i for i in range((resolution // 4).bit_length())]


class Synthesis(nn.Module):
    """w [B, layers, D] and keys [B] -> pictures: a learned constant, two convolutions a side, one sum of pictures of all."""

    resolution: int
    channels: int
    base_channels: int
    max_channels: int

    @nn.compact
    def __call__(self, w, keys):
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
    """z [B, latent] and a text -> pictures float32 [B, R, R, channels] about [-1, 1], not bounded.

    `map` gives w [B, layers, width], the same row for each of the 2 log2(R) - 2 layers; mixing styles is to mix rows of two.
    `synthesize` draws its noise from keys [B]. It hears the text through w alone, and does the same in training.

    width: of w.   mapping_layers: of the mapping network.   base_channels: over the side of a layer's pictures, and at most
    max_channels, it is the layer's number of features.
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
        self.synthesis = Synthesis(self.resolution, self.channels, self.base_channels, self.max_channels)

    def map(self, z, text: TextCondition):
        w = self.mapping(z, text.pooled)
        return jnp.broadcast_to(w[:, None], (len(w), 2 * len(_sides(self.resolution)), self.width))

    def synthesize(self, w, text: TextCondition, keys, train: bool):
        return self.synthesis(w, keys)

    def __call__(self, z, text: TextCondition, keys, train: bool):
        return self.synthesize(self.map(z, text), text, keys, train)


class Discriminator(nn.Module):
    """Pictures [B, R, R, channels] and a text -> (logits [B], features [B, D] of the last layer). Fields as of the Generator.

    axis_name: of pmap, for the standard deviation over the batch.
    """

    mapping_layers: int
    base_channels: int
    max_channels: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, text: TextCondition, train: bool):
        sides = _sides(x.shape[1])
        width = {side: _features(side, self.base_channels, self.max_channels) for side in sides}
        x = Conv(width[sides[-1]], 1, name="from_picture")(x)
        for side in reversed(sides[1:]):
            y = Conv(width[side], name=f"conv_{side}")(x)
            y = Conv(width[side // 2], operation=conv_down, name=f"down_{side}")(y)
            x = (y + Linear(width[side // 2], bias=None, name=f"skip_{side}")(downsample(x))) / 2**0.5
        spread = jnp.broadcast_to(minibatch_std(x, self.axis_name), (*x.shape[:3], 1))
        x = Conv(width[4], name="conv_4")(jnp.concatenate([x, spread], axis=-1))
        features = activation(Linear(width[4], name="whole")(x.reshape(len(x), -1)))
        fits = (features * Mapping(width[4], self.mapping_layers, name="mapping")(None, text.pooled)).sum(-1)
        return Linear(1, name="logit")(features)[:, 0] + fits / width[4] ** 0.5, features


def make_players(config, resolution: int, axis_name: str | None = None) -> tuple[Generator, Discriminator]:
    """Both players, of `config.model`: the fields of Generator.

    Raises ValueError for a resolution that is not 8, 16, 32, 64, ..., and for fewer base_channels than that.
    """
    if resolution < 8 or resolution.bit_count() > 1:
        near = max(8, 2 ** round(np.log2(max(resolution, 1))))
        raise ValueError(f"data.resolution {resolution}: it can be 8, 16, 32, 64, ... (4 doubled), the nearest is {near}")
    generator = Generator(resolution, **fields_of(config, {}))
    if generator.base_channels < resolution:
        raise ValueError(f"model.base_channels {generator.base_channels} over the side {resolution} leaves no channel")
    shared = {name: getattr(generator, name) for name in ("mapping_layers", "base_channels", "max_channels")}
    return generator, Discriminator(axis_name=axis_name, **shared)
