"""One space for pictures and captions: projections to unit vectors, and a learned temperature.

Source: arXiv 2103.00020, figure 3; the bias is that of arXiv 2303.15343, section 3.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.types import AnyArray
from t2i_jax.models.layers import Dense


class SharedSpace(nn.Module):
    """Projections of the pooled vectors of two networks to unit vectors of one space.

    channels: of the space.
    scale: what products of the vectors are multiplied by at the start; its logarithm is learned.
    bias: what is added to the scaled products at the start, and learned; None for no bias.
    """

    channels: int
    scale: float
    bias: float | None = None

    def setup(self):
        self.image = Dense(self.channels, use_bias=False)
        self.text = Dense(self.channels, use_bias=False)
        self.log_scale = self.param("log_scale", nn.initializers.constant(math.log(self.scale)), ())
        if self.bias is not None:
            self.offset = self.param("offset", nn.initializers.constant(self.bias), ())

    def embed_image(self, pooled: Float[AnyArray, "B D"]) -> Float[Array, "B channels"]:
        """Return the unit vectors of pictures, float32."""
        return unit_length(self.image(pooled))

    def embed_text(self, pooled: Float[AnyArray, "B D"]) -> Float[Array, "B channels"]:
        """Return the unit vectors of captions, float32."""
        return unit_length(self.text(pooled))

    def logits(
        self, a: Float[Array, "A channels"], b: Float[Array, "B channels"]
    ) -> Float[Array, "A B"]:
        """Return the scaled products of unit vectors, plus the bias if there is one."""
        scaled = jnp.exp(self.log_scale) * (a @ b.T)
        return scaled if self.bias is None else scaled + self.offset

    def __call__(
        self, image: Float[AnyArray, "B D"], text: Float[AnyArray, "N E"]
    ) -> Float[Array, "B N"]:
        """Return the logits of pooled vectors of pictures and captions."""
        return self.logits(self.embed_image(image), self.embed_text(text))


def unit_length(x: Float[AnyArray, "*shape"]) -> Float[Array, "*shape"]:
    """Return x as float32, divided by the length of its last axis."""
    x = jnp.asarray(x, jnp.float32)
    # Not the norm: the derivative of a root at 0 is infinite.
    return x / jnp.sqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))
