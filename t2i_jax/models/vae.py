"""The two networks of a variational autoencoder (arXiv 1312.6114), conditioned on text (CVAE: NeurIPS 2015, Sohn et al.)."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from t2i_jax.models import likelihoods
from t2i_jax.models.layers import Dense
from t2i_jax.models.unet import depth_to_space, space_to_depth
from t2i_jax.text.condition import TextCondition

NETS = ("conv", "dense")
SCALES = ("fixed", "one", "each")
LARGEST = 20.0  # of a log-variance: far from both ends is all that is of use, and exp never overflows


class Pixels(NamedTuple):
    """The parameters of a likelihood: `location` float [B, H, W, C] and `log_scale`, [] or [B, H, W, C]."""

    location: Any
    log_scale: Any


class Encoder(nn.Module):
    """x float [B, H, W, C] in [-1, 1] and text -> mean and log-variance of the posterior, each float32 [B, latent].

    Raises ValueError, saying which sizes it takes, for a picture that `net` "conv" cannot halve once a level.

    net: "conv", a 3x3 convolution a level, each level half as wide and high as the one before, the first half of the
    picture; or "dense", a layer a level.   multipliers: channels of each level over `width`.
    hidden: the layer that sees the whole picture and `text.pooled`.   dtype: of the computation; parameters are float32.
    """

    latent: int
    net: str = "conv"
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    hidden: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, text: TextCondition):
        check(self.net, self.multipliers, x.shape[1])
        x = x.astype(self.dtype)
        if self.net == "dense":
            x = x.reshape(x.shape[0], -1)
        for level, multiplier in enumerate(self.multipliers):
            channels = self.width * multiplier
            if self.net == "conv":
                x = space_to_depth(x, 2)
                if level:  # as a strided convolution, but its gradient is a matrix product, which CPUs do better
                    x = Dense(channels, dtype=self.dtype, name=f"down_{level}")(x)
                x = nn.Conv(channels, (3, 3), dtype=self.dtype, name=f"conv_{level}")(x)
            else:
                x = Dense(channels, dtype=self.dtype, name=f"dense_{level}")(x)
            x = nn.silu(x)
        x = jnp.concatenate([x.reshape(x.shape[0], -1), text.pooled.astype(self.dtype)], axis=-1)
        x = nn.silu(Dense(self.hidden, dtype=self.dtype, name="hidden")(x))
        posterior = Dense(2 * self.latent, dtype=self.dtype, name="posterior")(x).astype(jnp.float32)
        mean, log_var = jnp.split(posterior, 2, axis=-1)
        return mean, jnp.clip(log_var, -LARGEST, LARGEST)


class Decoder(nn.Module):
    """z float [B, latent] and text -> Pixels in float32, of pictures of `resolution`: the encoder's levels, backwards.

    scale: "fixed" (log_scale is the field), "one" (learned from there, one number) or "each" (the network says it for each
    pixel and channel). Without a meaning under a likelihood that has none. Raises ValueError as `Encoder` does.
    """

    resolution: int
    channels: int = 3
    likelihood: str = "gaussian"
    scale: str = "fixed"
    log_scale: float = 0.0
    net: str = "conv"
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    hidden: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z, text: TextCondition) -> Pixels:
        check(self.net, self.multipliers, self.resolution)
        if self.scale not in SCALES:
            raise ValueError(f"scale is {self.scale!r}; it can be {', '.join(SCALES)}")
        scales = likelihoods.load(self.likelihood).scales
        each = scales and self.scale == "each"
        features = self.channels * (1 + each)
        x = jnp.concatenate([z, text.pooled], axis=-1).astype(self.dtype)
        x = nn.silu(Dense(self.hidden, dtype=self.dtype, name="hidden")(x))
        if self.net == "conv":
            side = self.resolution >> len(self.multipliers)
            start = self.width * self.multipliers[-1]
            x = Dense(side**2 * start, dtype=self.dtype, name="start")(x).reshape(-1, side, side, start)
        for level in reversed(range(len(self.multipliers))):
            channels = self.width * self.multipliers[level]
            if self.net == "conv":
                x = nn.silu(nn.Conv(channels, (3, 3), dtype=self.dtype, name=f"conv_{level}")(nn.silu(x)))
                if level:
                    up = 4 * self.width * self.multipliers[level - 1]
                    x = depth_to_space(Dense(up, dtype=self.dtype, name=f"up_{level}")(x), 2)
            else:
                x = nn.silu(Dense(channels, dtype=self.dtype, name=f"dense_{level}")(x))
        if self.net == "conv":
            x = depth_to_space(nn.Conv(4 * features, (3, 3), dtype=self.dtype, name="pixels")(x), 2)
        else:
            x = Dense(self.resolution**2 * features, dtype=self.dtype, name="pixels")(x)
        x = x.reshape(-1, self.resolution, self.resolution, features).astype(jnp.float32)
        log_scale = jnp.float32(self.log_scale)
        if each:
            x, deviation = jnp.split(x, 2, axis=-1)
            log_scale = log_scale + deviation
        elif scales and self.scale == "one":
            log_scale = self.param("log_scale", nn.initializers.constant(self.log_scale), ())
        return Pixels(x, jnp.maximum(log_scale, likelihoods.SMALLEST))


def check(net: str, multipliers, resolution: int) -> None:
    """ValueError if there is no such net, or it cannot make pictures of this resolution."""
    if net not in NETS:
        raise ValueError(f"net is {net!r}; it can be {', '.join(NETS)}")
    multiple = 2 ** len(multipliers)
    if net == "conv" and resolution % multiple:
        near = max(round(resolution / multiple), 1) * multiple
        raise ValueError(
            f"a picture of {resolution} px cannot be halved {len(multipliers)} times, once for each of multipliers: its side"
            f" must be a multiple of {multiple}, such as {near}; or net can be dense, which makes any size"
        )
