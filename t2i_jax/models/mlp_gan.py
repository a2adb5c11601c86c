"""The players of the first GAN: fully connected (arXiv 1406.2661), conditioned as in 1411.1784."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from t2i_jax.core.text import TextCondition
from t2i_jax.core.types import AnyArray
from t2i_jax.models.layers import Dense
from t2i_jax.models.variants import fields_of


class Generator(nn.Module):
    """A generator of pictures [B, R, R, channels] in [-1, 1] from random numbers z and a text.

    resolution: R, the side of the pictures in pixels.
    channels: of the pictures: 3 (colour) or 1 (grey).
    latent: number of random numbers per picture.
    widths: units of each hidden layer.
    """

    resolution: int
    channels: int = 1
    latent: int = 64
    widths: tuple[int, ...] = (256, 512)

    def map(self, z: Float[AnyArray, "B Z"], text: TextCondition) -> Float[AnyArray, "B 1 Z"]:
        """Return z: this generator has no mapping network."""
        return z[:, None]

    @nn.compact
    def synthesize(
        self,
        w: Float[AnyArray, "B 1 Z"],
        text: TextCondition,
        keys: Key[Array, "B"] | None,
        train: bool,
    ) -> Float[Array, "B R R channels"]:
        """Return the pictures of `w`, which `map` gives. No keys are needed."""
        x = jnp.concatenate([w[:, 0], Dense(self.latent, name="text")(text.pooled)], axis=-1)
        for i, width in enumerate(self.widths):
            x = nn.leaky_relu(Dense(width, name=f"hidden_{i}")(x), 0.2)
        shape = (self.resolution, self.resolution, self.channels)
        return jnp.tanh(Dense(math.prod(shape), name="picture")(x)).reshape(-1, *shape)

    def __call__(
        self,
        z: Float[AnyArray, "B Z"],
        text: TextCondition,
        keys: Key[Array, "B"] | None,
        train: bool,
    ) -> Float[Array, "B R R channels"]:
        """Return pictures in [-1, 1]."""
        return self.synthesize(self.map(z, text), text, keys, train)


class Discriminator(nn.Module):
    """A discriminator of pictures with a text.

    widths: units of each hidden layer.
    """

    widths: tuple[int, ...] = (512, 256)

    @nn.compact
    def __call__(
        self, x: Float[Array, "B R R channels"], text: TextCondition, train: bool
    ) -> tuple[Float[Array, "B"], Float[Array, "B D"]]:
        """Return (logits, features of the last hidden layer)."""
        x = jnp.concatenate(
            [x.reshape(len(x), -1), Dense(self.widths[-1], name="text")(text.pooled)], axis=-1
        )
        for i, width in enumerate(self.widths):
            x = nn.leaky_relu(Dense(width, name=f"hidden_{i}")(x), 0.2)
        return Dense(1, name="logit")(x)[:, 0], x


def make_players(
    config, resolution: int, axis_name: str | None = None
) -> tuple[Generator, Discriminator]:
    """Return both players of `config.model`.

    Fields used: those of Generator. The discriminator has its `widths` in reversed order.
    """
    del axis_name  # no layer here combines examples
    generator = Generator(resolution, **fields_of(config, {}))
    return generator, Discriminator(tuple(reversed(generator.widths)))
