"""DCGAN (arXiv 1511.06434), conditioned on text.

The caption modulates BatchNorm in the generator (arXiv 1707.00683) and enters the discriminator by
a projection (arXiv 1802.05637). Both players can attend to the single words (arXiv 1711.10485).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from t2i_jax.core.text import TextCondition
from t2i_jax.core.types import AnyArray
from t2i_jax.models.attention import Attention, layer_norm
from t2i_jax.models.layers import Dense, batch_norm, matmul
from t2i_jax.models.variants import fields_of

UPSAMPLE = ("transposed", "resize")
NORMS = ("batch", "spectral", "none")


class AttendToText(nn.Module):
    """Attention of the cells of x to the words of the text, then of the cells to one another.

    heads: attention heads.
    """

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], text: TextCondition) -> Float[Array, "B H W C"]:
        cells = x.reshape(len(x), -1, x.shape[-1])
        cells = (
            cells
            + Attention(self.heads, name="words")(layer_norm(cells), text.sequence, text.mask)[0]
        )
        cells = cells + Attention(self.heads, name="cells")(layer_norm(cells))[0]
        return cells.reshape(x.shape)


class Downsample(nn.Module):
    """The 4 x 4 convolution of stride 2, which halves the sides.

    features: channels of the result.

    It is one product of all windows, of the zeros around the picture too. On CPU, XLA needs nine
    times as long for the gradient of a penalty (adversarial/penalties.py) on its own convolution.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H//2 W//2 features"]:
        _, h, w, c = x.shape
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (4, 4, c, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = x.reshape(-1, h // 2 + 1, 2, w // 2 + 1, 2, c)
        windows = [
            x[:, i // 2 : i // 2 + h // 2, i % 2, j // 2 : j // 2 + w // 2, j % 2]
            for i in range(4)
            for j in range(4)
        ]
        return matmul(jnp.concatenate(windows, axis=-1), kernel.reshape(-1, self.features)) + bias


class Upsample(nn.Module):
    """A convolution that doubles the sides.

    channels: of the result.
    kind: one of UPSAMPLE. "transposed" is the 4 x 4 convolution of stride 1/2 of the paper.
        "resize" takes nearest neighbours and then a 3 x 3 convolution, which avoids chequerboard
        patterns (distill.pub/2016/deconv-checkerboard).
    """

    channels: int
    kind: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W channels"]:
        if self.kind == "resize":
            return nn.Conv(self.channels, (3, 3), use_bias=False, name="conv")(
                x.repeat(2, 1).repeat(2, 2)
            )
        # Each of the four pixels of a cell depends on 2 x 2 cells. One product computes all four
        # for each square of cells, then each pixel takes its own part. On CPU this is four times as
        # fast as XLA's transposed convolution, with the same taps.
        (_, h, w, _), c = x.shape, self.channels
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        near = jnp.concatenate(
            [x[:, i : i + h + 1, j : j + w + 1] for i in (0, 1) for j in (0, 1)], axis=-1
        )
        y = Dense(4 * c, use_bias=False, name="conv")(near)
        rows = [
            jnp.stack(
                [y[:, i : i + h, j : j + w, (2 * i + j) * c :][..., :c] for j in (0, 1)], axis=3
            )
            for i in (0, 1)
        ]
        return jnp.stack(rows, axis=2).reshape(-1, 2 * h, 2 * w, c)


class Generator(nn.Module):
    """A generator of pictures [B, R, R, channels] in [-1, 1] from random numbers z and a text.

    resolution: R, the side of the pictures in pixels.
    channels: of the pictures: 3 (colour) or 1 (grey).
    latent: number of random numbers per picture.
    width: channels at half of the resolution; each earlier stage has twice as many.
    levels: how often the sides double.
    upsample: how they double: "transposed" (as in the paper) or "resize" (no chequerboard).
    attention: the sides (in cells) at which the cells attend to the words.
    heads: attention heads.
    axis_name: of pmap, for BatchNorm over all devices; or None.
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

        def norm(x, name):
            scale, shift = jnp.split(
                Dense(2 * x.shape[-1], name=f"{name}_text")(text.pooled)[:, None, None], 2, axis=-1
            )
            return nn.relu(
                batch_norm(x, train, self.axis_name, name, affine=False) * (1 + scale) + shift
            )

        side, width = self.resolution // 2**self.levels, self.width * 2 ** (self.levels - 1)
        seed = jnp.concatenate([w[:, 0], Dense(self.latent, name="text")(text.pooled)], axis=-1)
        x = Dense(side * side * width, use_bias=False, name="start")(seed).reshape(
            -1, side, side, width
        )
        for level in range(self.levels):
            if level:
                x = Upsample(width // 2**level, self.upsample, name=f"up_{level}")(x)
            x = norm(x, f"norm_{level}")
            if x.shape[1] in self.attention:
                x = AttendToText(self.heads, name=f"hear_{level}")(x, text)
        return jnp.tanh(Upsample(self.channels, self.upsample, name="picture")(x))

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

    width: channels of the first stage; each later stage has twice as many.
    levels: how often the sides are halved.
    norm: "batch", "spectral" or "none": of all layers but those that attend to words. Its state is
        in the collection "batch_stats".
    attention: the sides (in cells) at which the cells attend to the words.
    heads: attention heads.
    axis_name: of pmap, for BatchNorm over all devices; or None.
    """

    width: int = 32
    levels: int = 3
    norm: str = "batch"
    attention: tuple[int, ...] = ()
    heads: int = 4
    axis_name: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B R R channels"], text: TextCondition, train: bool
    ) -> tuple[Float[Array, "B"], Float[Array, "B H W C"]]:
        """Return (logits, features of the last stage)."""

        def layer(module, x):
            return (
                nn.SpectralNorm(module)(x, update_stats=train)
                if self.norm == "spectral"
                else module(x)
            )

        for level in range(self.levels):
            x = layer(Downsample(self.width * 2**level, name=f"conv_{level}"), x)
            if self.norm == "batch" and level:  # not on the first layer, as in the paper
                x = batch_norm(x, train, self.axis_name, f"norm_{level}")
            x = nn.leaky_relu(x, 0.2)
            if x.shape[1] in self.attention:
                x = AttendToText(self.heads, name=f"hear_{level}")(x, text)
        flat = nn.leaky_relu(layer(Dense(x.shape[-1], name="whole"), x.reshape(len(x), -1)), 0.2)
        match = (flat * layer(Dense(x.shape[-1], use_bias=False, name="text"), text.pooled)).sum(-1)
        return layer(Dense(1, name="logit"), flat)[:, 0] + match / x.shape[-1] ** 0.5, x


def make_players(
    config, resolution: int, axis_name: str | None = None
) -> tuple[Generator, Discriminator]:
    """Return both players of `config.model`.

    Fields used: those of Generator, and `norm` of Discriminator.
    Raises ValueError for a resolution that cannot be halved `levels` times, a side in `attention`
    that no stage has, and an unknown `upsample` or `norm`.
    """
    fields = fields_of(config, {})
    norm = fields.pop("norm", Discriminator.norm)
    generator = Generator(resolution, axis_name=axis_name, **fields)
    if resolution % 2**generator.levels:
        multiple = 2**generator.levels
        nearest = max(round(resolution / multiple), 1) * multiple
        raise ValueError(
            f"data.resolution {resolution} cannot be made by doubling {generator.levels} times "
            f"(model.levels): multiples of {multiple} can, the nearest is {nearest}"
        )
    sides = [resolution // 2**level for level in range(1, generator.levels + 1)]
    if wrong := sorted(set(generator.attention) - set(sides)):
        known = ", ".join(map(str, sides))
        raise ValueError(f"model.attention has {wrong[0]}: the stages have the sides {known}")
    for field, value, known in (("upsample", generator.upsample, UPSAMPLE), ("norm", norm, NORMS)):
        if value not in known:
            raise ValueError(f"model.{field} = {value!r}: it can be {', '.join(known)}")
    shared = {
        name: getattr(generator, name)
        for name in ("width", "levels", "attention", "heads", "axis_name")
    }
    return generator, Discriminator(norm=norm, **shared)
