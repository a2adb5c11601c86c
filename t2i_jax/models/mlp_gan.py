"""The fully connected generator and discriminator of the first GAN (arXiv 1406.2661), conditioned as in arXiv 1411.1784."""

import math

import flax.linen as nn
import jax.numpy as jnp

from t2i_jax.models.layers import Dense
from t2i_jax.models.variants import fields_of
from t2i_jax.text.condition import TextCondition


class Generator(nn.Module):
    """z [B, latent] and a text -> pictures [B, R, R, channels] in [-1, 1]; `map` passes z on as it is, [B, 1, latent]."""

    resolution: int
    channels: int = 1
    latent: int = 64
    widths: tuple[int, ...] = (256, 512)

    def map(self, z, text: TextCondition):
        return z[:, None]

    @nn.compact
    def synthesize(self, w, text: TextCondition, keys, train: bool):
        x = jnp.concatenate([w[:, 0], Dense(self.latent, name="text")(text.pooled)], axis=-1)
        for i, width in enumerate(self.widths):
            x = nn.leaky_relu(Dense(width, name=f"hidden_{i}")(x), 0.2)
        shape = (self.resolution, self.resolution, self.channels)
        return jnp.tanh(Dense(math.prod(shape), name="picture")(x)).reshape(-1, *shape)

    def __call__(self, z, text: TextCondition, keys, train: bool):
        return self.synthesize(self.map(z, text), text, keys, train)


class Discriminator(nn.Module):
    """Pictures [B, R, R, channels] and a text -> (logits [B], features [B, widths[-1]])."""

    widths: tuple[int, ...] = (512, 256)

    @nn.compact
    def __call__(self, x, text: TextCondition, train: bool):
        x = jnp.concatenate([x.reshape(len(x), -1), Dense(self.widths[-1], name="text")(text.pooled)], axis=-1)
        for i, width in enumerate(self.widths):
            x = nn.leaky_relu(Dense(width, name=f"hidden_{i}")(x), 0.2)
        return Dense(1, name="logit")(x)[:, 0], x


def make_players(config, resolution: int, axis_name: str | None = None) -> tuple[Generator, Discriminator]:
    """Both players, of `config.model`: channels, latent, widths (of the generator; the discriminator has them reversed)."""
    del axis_name  # nothing here goes across examples
    generator = Generator(resolution, **fields_of(config, {}))
    return generator, Discriminator(tuple(reversed(generator.widths)))
