"""Adaptive instance normalization, and a decoder of maps to pictures (arXiv 1703.06868)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.types import AnyArray

EPSILON = 1e-5  # added to variances


def statistics(
    x: Float[AnyArray, "B h w C"],
) -> tuple[Float[Array, "B 1 1 C"], Float[Array, "B 1 1 C"]]:
    """Return mean and standard deviation of each channel over the places."""
    deviation = jnp.sqrt(jnp.var(x, (1, 2), keepdims=True) + EPSILON)
    return jnp.mean(x, (1, 2), keepdims=True), deviation


def adapt(
    content: Float[AnyArray, "B h w C"], style: Float[AnyArray, "B H W C"]
) -> Float[Array, "B h w C"]:
    """Return the content with the mean and deviation of each channel of the style (equation 8)."""
    (mean, deviation), (new_mean, new_deviation) = statistics(content), statistics(style)
    return jnp.asarray((content - mean) / deviation * new_deviation + new_mean)


class StyleDecoder(nn.Module):
    """A network from feature maps to pictures in about [-1, 1], without a norm (section 6.2).

    doublings: how often the sides are doubled, by repeating pixels.
    width: channels of the coarsest level; each finer level has half as many.
    """

    doublings: int
    width: int = 64

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Return the pictures."""

        def conv(y, channels, name):
            y = jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
            return nn.Conv(channels, (3, 3), padding="VALID", name=name)(y)

        x = nn.relu(conv(x, self.width, "conv_in"))
        for level in range(self.doublings):
            x = nn.relu(conv(x, self.width // 2**level, f"conv_{level}"))
            x = x.repeat(2, axis=1).repeat(2, axis=2)
        x = nn.relu(conv(x, self.width // 2**self.doublings, f"conv_{self.doublings}"))
        return conv(x, 3, "conv_out")
