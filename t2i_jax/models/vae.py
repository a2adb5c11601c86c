"""The two networks of a variational autoencoder (arXiv 1312.6114), conditioned on text.

Conditional VAE: Sohn et al., NeurIPS 2015.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.text import TextCondition
from t2i_jax.models import likelihoods
from t2i_jax.models.layers import Dense, depth_to_space, space_to_depth

NETS = ("conv", "dense")
SCALES = ("fixed", "one", "each")
# A wide limit: only values far from both ends are of use, and exp never overflows.
MAX_ABS_LOG_VARIANCE = 20.0


class Pixels(NamedTuple):
    """The parameters of a likelihood of pictures."""

    location: Float[Array, "B H W C"]
    log_scale: Float[Array, ""] | Float[Array, "B H W C"]


class Encoder(nn.Module):
    """A network from a picture and a text to the posterior of its latent numbers.

    latent: number of latent numbers.
    net: "conv": a 3 x 3 convolution per level, each level half as wide and high as the one before,
        the first half of the picture; or "dense": a dense layer per level.
    width: channels of a level whose multiplier is 1.
    multipliers: channels of each level over `width`, the finest level first.
    hidden: units of the layer that takes the whole picture and `text.pooled`.
    dtype: of the computation; parameters are float32.
    """

    latent: int
    net: str = "conv"
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    hidden: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], text: TextCondition
    ) -> tuple[Float[Array, "B latent"], Float[Array, "B latent"]]:
        """Return (mean, log-variance), float32, of pictures in [-1, 1].

        Raises ValueError, naming possible sizes, for a picture that "conv" cannot halve once per
        level.
        """
        check(self.net, self.multipliers, x.shape[1])
        x = x.astype(self.dtype)
        if self.net == "dense":
            x = x.reshape(x.shape[0], -1)
        for level, multiplier in enumerate(self.multipliers):
            channels = self.width * multiplier
            if self.net == "conv":
                x = space_to_depth(x, 2)
                # Equivalent to a strided convolution, but its gradient is a matrix product. That is
                # faster on CPU.
                if level:
                    x = Dense(channels, dtype=self.dtype, name=f"down_{level}")(x)
                x = nn.Conv(channels, (3, 3), dtype=self.dtype, name=f"conv_{level}")(x)
            else:
                x = Dense(channels, dtype=self.dtype, name=f"dense_{level}")(x)
            x = nn.silu(x)
        x = jnp.concatenate([x.reshape(x.shape[0], -1), text.pooled.astype(self.dtype)], axis=-1)
        x = nn.silu(Dense(self.hidden, dtype=self.dtype, name="hidden")(x))
        posterior = Dense(2 * self.latent, dtype=self.dtype, name="posterior")(x).astype(
            jnp.float32
        )
        mean, log_var = jnp.split(posterior, 2, axis=-1)
        return mean, jnp.clip(log_var, -MAX_ABS_LOG_VARIANCE, MAX_ABS_LOG_VARIANCE)


class Decoder(nn.Module):
    """A network from latent numbers and a text to the parameters of a likelihood of pictures.

    It has the levels of the encoder in reversed order.

    resolution: side of the pictures in pixels.
    channels: of the pictures: 3 (colour) or 1 (grey).
    likelihood: of pixels: "gaussian", "logistic" (256 levels) or "bernoulli" (black and white).
    scale: of a likelihood that has one: "fixed" (the field log_scale), "one" (a learned number that
        starts there) or "each" (predicted for each pixel and channel).
    log_scale: logarithm of the scale, or its start.
    net: "conv" or "dense", see Encoder.
    width: channels of a level whose multiplier is 1.
    multipliers: channels of each level over `width`, the finest level first.
    hidden: units of the first layer.
    dtype: of the computation; parameters are float32.
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
    def __call__(self, z: Float[Array, "B latent"], text: TextCondition) -> Pixels:
        """Return the parameters in float32. Raises ValueError as Encoder does."""
        check(self.net, self.multipliers, self.resolution)
        if self.scale not in SCALES:
            raise ValueError(f"scale is {self.scale!r}; it can be {', '.join(SCALES)}")
        has_scale = likelihoods.load(self.likelihood).has_scale
        each = has_scale and self.scale == "each"
        features = self.channels * (1 + each)
        x = jnp.concatenate([z, text.pooled], axis=-1).astype(self.dtype)
        x = nn.silu(Dense(self.hidden, dtype=self.dtype, name="hidden")(x))
        if self.net == "conv":
            side = self.resolution >> len(self.multipliers)
            start = self.width * self.multipliers[-1]
            x = Dense(side**2 * start, dtype=self.dtype, name="start")(x).reshape(
                -1, side, side, start
            )
        for level in reversed(range(len(self.multipliers))):
            channels = self.width * self.multipliers[level]
            if self.net == "conv":
                x = nn.silu(
                    nn.Conv(channels, (3, 3), dtype=self.dtype, name=f"conv_{level}")(nn.silu(x))
                )
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
        elif has_scale and self.scale == "one":
            log_scale = self.param("log_scale", nn.initializers.constant(self.log_scale), ())
        return Pixels(x, jnp.maximum(log_scale, likelihoods.MIN_LOG_SCALE))


def check(net: str, multipliers, resolution: int) -> None:
    """Raise ValueError for an unknown net, or one that cannot make pictures of this resolution."""
    if net not in NETS:
        raise ValueError(f"net is {net!r}; it can be {', '.join(NETS)}")
    multiple = 2 ** len(multipliers)
    if net == "conv" and resolution % multiple:
        near = max(round(resolution / multiple), 1) * multiple
        raise ValueError(
            f"a picture of {resolution} px cannot be halved {len(multipliers)} times, once for "
            f"each of multipliers: its side must be a multiple of {multiple}, such as {near}; or "
            "net can be dense, which makes any size"
        )
