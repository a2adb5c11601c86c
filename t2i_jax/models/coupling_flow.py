"""An invertible network whose Jacobian determinant is known, conditioned on text.

Affine coupling layers and several scales: RealNVP (arXiv 1605.08803). Learned mixing of channels
between them: Glow (arXiv 1807.03039).
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.text import TextCondition
from t2i_jax.models.layers import Dense, depth_to_space, space_to_depth

# One layer scales by at most exp(this), so that the inverse stays accurate in float32.
MAX_ABS_LOG_SCALE = 2.0


class ShiftAndScale(nn.Module):
    """The network of a coupling layer: it need not be invertible.

    It starts at zero, so that an untrained coupling layer changes nothing.

    features: channels of the shift, and of the scale.
    width: channels of the hidden layers.
    """

    features: int
    width: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], text: TextCondition
    ) -> tuple[Float[Array, "B H W {self.features}"], Float[Array, "B H W {self.features}"]]:
        """Return (shift, logarithm of the scale)."""
        condition = Dense(self.width, name="text")(text.pooled)[:, None, None]
        x = nn.silu(nn.Conv(self.width, (3, 3), name="conv")(x) + condition)
        x = nn.silu(Dense(self.width, name="hidden")(x))
        zeros = nn.initializers.zeros
        x = nn.Conv(2 * self.features, (3, 3), kernel_init=zeros, name="out")(x)
        shift, scale = jnp.split(x, 2, axis=-1)
        return shift, MAX_ABS_LOG_SCALE * jnp.tanh(scale / MAX_ABS_LOG_SCALE)


class CouplingLayer(nn.Module):
    """An invertible layer: it mixes the channels, then shifts and scales half of them.

    Shift and scale are a function of the other half and of the text.

    channels: of the input and the output, an even number.
    width: channels of the network that gives shift and scale.
    """

    channels: int
    width: int

    def setup(self):
        # A random rotation at the start (arXiv 1807.03039, section 3.2).
        shape = (self.channels, self.channels)
        self.mixing = self.param("mixing", nn.initializers.orthogonal(), shape)
        self.network = ShiftAndScale(self.channels // 2, self.width)

    def __call__(
        self, x: Float[Array, "B H W C"], text: TextCondition
    ) -> tuple[Float[Array, "B H W C"], Float[Array, "B"]]:
        """Return the output, and log |det| of its Jacobian."""
        kept, changed = jnp.split(x @ self.mixing, 2, axis=-1)
        shift, log_scale = self.network(kept, text)
        changed = (changed + shift) * jnp.exp(log_scale)
        cells = x.shape[1] * x.shape[2]
        log_det = cells * jnp.linalg.slogdet(self.mixing)[1] + log_scale.sum(axis=(1, 2, 3))
        return jnp.concatenate([kept, changed], axis=-1), log_det

    def inverse(self, y: Float[Array, "B H W C"], text: TextCondition) -> Float[Array, "B H W C"]:
        """Return the input whose output is `y`."""
        kept, changed = jnp.split(y, 2, axis=-1)
        shift, log_scale = self.network(kept, text)
        changed = changed * jnp.exp(-log_scale) - shift
        return jnp.concatenate([kept, changed], axis=-1) @ jnp.linalg.inv(self.mixing)


class CouplingFlow(nn.Module):
    """An invertible network from pictures to as many latent numbers.

    At each level, every square of 2 x 2 cells becomes one cell of 4 times the channels. After the
    layers of a level, half of the channels are latent numbers already (RealNVP, section 3.6).

    side: of a picture in pixels, a multiple of 2^levels.
    channels: of a picture: 3 for colour, 1 for grey.
    levels: how often the sides are halved.
    depth: coupling layers of each level.
    width: channels of the networks of the coupling layers.
    """

    side: int
    channels: int = 3
    levels: int = 3
    depth: int = 6
    width: int = 64

    def setup(self):
        check(self.side, self.levels)
        self.layers = [
            [CouplingLayer(shape[-1], self.width) for _ in range(self.depth)]
            for shape in self.shapes()
        ]

    def shapes(self) -> list[tuple[int, int, int]]:
        """Return the shape of the picture at each level: (height, width, channels)."""
        sides = [self.side >> (level + 1) for level in range(self.levels)]
        return [(s, s, (4 << level) * self.channels) for level, s in enumerate(sides)]

    def __call__(
        self, x: Float[Array, "B H W C"], text: TextCondition
    ) -> tuple[Float[Array, "B D"], Float[Array, "B"]]:
        """Return the latent numbers, and log |det| of their Jacobian. D is H * W * C."""
        latents, log_det = [], jnp.zeros(len(x))
        for level, layers in enumerate(self.layers):
            x = space_to_depth(x, 2)
            for layer in layers:
                x, change = layer(x, text)
                log_det = log_det + change
            if level < self.levels - 1:
                done, x = jnp.split(x, 2, axis=-1)
                latents.append(done)
        latents.append(x)
        return jnp.concatenate([z.reshape(len(x), -1) for z in latents], axis=1), log_det

    def inverse(self, z: Float[Array, "B D"], text: TextCondition) -> Float[Array, "B H W C"]:
        """Return the pictures whose latent numbers are `z`."""
        shapes = self.shapes()
        ends, end = [], 0
        for height, width, channels in shapes[:-1]:
            end += height * width * channels // 2
            ends.append(end)
        latents = jnp.split(z, ends, axis=1)
        x = latents.pop().reshape(-1, *shapes[-1])
        for level in reversed(range(self.levels)):
            for layer in reversed(self.layers[level]):
                x = layer.inverse(x, text)
            x = depth_to_space(x, 2)
            if level:
                height, width, channels = shapes[level - 1]
                done = latents.pop().reshape(-1, height, width, channels // 2)
                x = jnp.concatenate([done, x], axis=-1)
        return x


def check(side: int, levels: int) -> None:
    """Raise ValueError for pictures that cannot be halved `levels` times."""
    multiple = 2**levels
    if side % multiple:
        near = max(round(side / multiple), 1) * multiple
        raise ValueError(
            f"a picture of {side} px cannot be halved {levels} times, once for each of "
            f"model.levels: its side must be a multiple of {multiple}, such as {near}"
        )
