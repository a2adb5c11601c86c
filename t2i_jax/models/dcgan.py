"""DCGAN (arXiv 1511.06434), conditioned on the sentence by modulated BatchNorm (arXiv 1707.00683) and a projection in the
discriminator (arXiv 1802.05637), and on words by attention to them (arXiv 1711.10485)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from t2i_jax.models.attention import Attention, layer_norm
from t2i_jax.models.layers import Dense, batch_norm
from t2i_jax.models.variants import fields_of
from t2i_jax.text.condition import TextCondition

UPSAMPLE = ("transposed", "resize")
NORMS = ("batch", "spectral", "none")


class HearWords(nn.Module):
    """x [B, H, W, C] plus what its cells find by looking at the words and, if there is a place to compare, at one another."""

    heads: int

    @nn.compact
    def __call__(self, x, text: TextCondition):
        cells = x.reshape(len(x), -1, x.shape[-1])
        cells = cells + Attention(self.heads, name="words")(layer_norm(cells), text.sequence, text.mask)[0]
        cells = cells + Attention(self.heads, name="cells")(layer_norm(cells))[0]
        return cells.reshape(x.shape)


class Upsample(nn.Module):
    """[B, H, W, C] -> [B, 2 H, 2 W, channels] by one of UPSAMPLE.

    "transposed": the 4 x 4 convolution of stride 1/2 of the paper; "resize": nearest neighbours, then 3 x 3
    (distill.pub/2016/deconv-checkerboard), which leaves no chequerboard.
    """

    channels: int
    kind: str

    @nn.compact
    def __call__(self, x):
        if self.kind == "resize":
            return nn.Conv(self.channels, (3, 3), use_bias=False, name="conv")(x.repeat(2, 1).repeat(2, 2))
        # Each of the four pixels made of a cell sees 2 x 2 cells: one product for all four, then each takes its own. On CPU
        # that is four times as fast as XLA's transposed convolution, with the same taps.
        (_, h, w, _), c = x.shape, self.channels
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        near = jnp.concatenate([x[:, i : i + h + 1, j : j + w + 1] for i in (0, 1) for j in (0, 1)], axis=-1)
        y = Dense(4 * c, use_bias=False, name="conv")(near)
        rows = [jnp.stack([y[:, i : i + h, j : j + w, (2 * i + j) * c :][..., :c] for j in (0, 1)], axis=3) for i in (0, 1)]
        return jnp.stack(rows, axis=2).reshape(-1, 2 * h, 2 * w, c)


class Generator(nn.Module):
    """z [B, latent] and a text -> pictures [B, R, R, channels] in [-1, 1]; `map` passes z on as it is, [B, 1, latent].

    width: channels at half of R, each stage before it has twice as many.   levels: how often the sides double.
    attention: the sides at which cells look at words.   axis_name: of pmap, for BatchNorm.
    """

    resolution: int
    channels: int = 3
    latent: int = 64
    width: int = 32
    levels: int = 3
    upsample: str = "transposed"
    attention: tuple[int, ...] = ()
    heads: int = 4
    axis_name: Any = None

    def map(self, z, text: TextCondition):
        return z[:, None]

    @nn.compact
    def synthesize(self, w, text: TextCondition, keys, train: bool):
        def norm(x, name):
            scale, shift = jnp.split(Dense(2 * x.shape[-1], name=f"{name}_text")(text.pooled)[:, None, None], 2, axis=-1)
            return nn.relu(batch_norm(x, train, self.axis_name, name, affine=False) * (1 + scale) + shift)

        side, width = self.resolution // 2**self.levels, self.width * 2 ** (self.levels - 1)
        seed = jnp.concatenate([w[:, 0], Dense(self.latent, name="text")(text.pooled)], axis=-1)
        x = Dense(side * side * width, use_bias=False, name="start")(seed).reshape(-1, side, side, width)
        for level in range(self.levels):
            if level:
                x = Upsample(width // 2**level, self.upsample, name=f"up_{level}")(x)
            x = norm(x, f"norm_{level}")
            if x.shape[1] in self.attention:
                x = HearWords(self.heads, name=f"hear_{level}")(x, text)
        return jnp.tanh(Upsample(self.channels, self.upsample, name="picture")(x))

    def __call__(self, z, text: TextCondition, keys, train: bool):
        return self.synthesize(self.map(z, text), text, keys, train)


class Discriminator(nn.Module):
    """Pictures [B, R, R, channels] and a text -> (logits [B], features [B, H, W, C] of the last stage).

    norm: one of NORMS, of all layers but those that look at words; its state is in "batch_stats".
    Other fields are those of the Generator.
    """

    width: int = 32
    levels: int = 3
    norm: str = "batch"
    attention: tuple[int, ...] = ()
    heads: int = 4
    axis_name: Any = None

    @nn.compact
    def __call__(self, x, text: TextCondition, train: bool):
        def layer(module, x):
            return nn.SpectralNorm(module)(x, update_stats=train) if self.norm == "spectral" else module(x)

        for level in range(self.levels):
            x = layer(nn.Conv(self.width * 2**level, (4, 4), (2, 2), name=f"conv_{level}"), x)
            if self.norm == "batch" and level:  # not on the first layer, as in the paper
                x = batch_norm(x, train, self.axis_name, f"norm_{level}")
            x = nn.leaky_relu(x, 0.2)
            if x.shape[1] in self.attention:
                x = HearWords(self.heads, name=f"hear_{level}")(x, text)
        flat = nn.leaky_relu(layer(Dense(x.shape[-1], name="whole"), x.reshape(len(x), -1)), 0.2)
        fits = (flat * layer(Dense(x.shape[-1], use_bias=False, name="text"), text.pooled)).sum(-1)
        return layer(Dense(1, name="logit"), flat)[:, 0] + fits / x.shape[-1] ** 0.5, x


def make_players(config, resolution: int, axis_name: str | None = None) -> tuple[Generator, Discriminator]:
    """Both players, of `config.model`: the fields of Generator, and `norm` of the discriminator.

    Raises ValueError for a resolution that cannot be halved `levels` times, a side in `attention` that no stage has, and an
    unknown `upsample` or `norm`.
    """
    fields = fields_of(config, {})
    norm = fields.pop("norm", Discriminator.norm)
    generator = Generator(resolution, axis_name=axis_name, **fields)
    if resolution % 2**generator.levels:
        multiple = 2**generator.levels
        raise ValueError(
            f"data.resolution {resolution} cannot be made by doubling {generator.levels} times (model.levels): "
            f"multiples of {multiple} can, the nearest is {max(round(resolution / multiple), 1) * multiple}"
        )
    sides = [resolution // 2**level for level in range(1, generator.levels + 1)]
    if wrong := sorted(set(generator.attention) - set(sides)):
        raise ValueError(f"model.attention has {wrong[0]}: the stages have the sides {', '.join(map(str, sides))}")
    for field, value, known in (("upsample", generator.upsample, UPSAMPLE), ("norm", norm, NORMS)):
        if value not in known:
            raise ValueError(f"model.{field} = {value!r}: it can be {', '.join(known)}")
    shared = {name: getattr(generator, name) for name in ("width", "levels", "attention", "heads", "axis_name")}
    return generator, Discriminator(norm=norm, **shared)
