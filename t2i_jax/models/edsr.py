"""EDSR: a residual network that enlarges pictures (arXiv 1707.02921, section 3).

It works at the size of the small picture, without normalisation, and enlarges at the end by
convolutions whose channels become pixels (arXiv 1609.05158). Unlike the paper's network, it adds
the bicubic enlargement of the small picture to its output (as arXiv 1511.04587 does): training
begins near that, and learns what it lacks.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.data.degradation import enlarge
from t2i_jax.models.layers import depth_to_space

FACTORS = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}  # of the steps to each scale


class EDSR(nn.Module):
    """A network from pictures to pictures of `scale` times the sides, both in about [-1, 1].

    A pixel depends on the small picture's pixels up to 2 depth + 5 px away.

    scale: one of FACTORS.
    width: channels.
    depth: residual blocks; the paper's baseline has 16.
    """

    scale: int
    width: int = 64
    depth: int = 16

    @nn.compact
    def __call__(self, x: Float[Array, "B h w 3"]) -> Float[Array, "B H W 3"]:
        """Return the enlarged pictures."""
        first = y = nn.Conv(self.width, (3, 3), name="conv_in")(x)
        for block in range(self.depth):
            inner = nn.relu(nn.Conv(self.width, (3, 3), name=f"block_{block}_conv_0")(y))
            y = y + nn.Conv(self.width, (3, 3), name=f"block_{block}_conv_1")(inner)
        y = first + nn.Conv(self.width, (3, 3), name="conv_middle")(y)
        for step, factor in enumerate(FACTORS[self.scale]):
            y = nn.Conv(self.width * factor**2, (3, 3), name=f"up_{step}")(y)
            y = depth_to_space(y, factor)
        # At first nothing is added to the bicubic enlargement.
        zeros = nn.initializers.zeros
        y = nn.Conv(3, (3, 3), kernel_init=zeros, name="conv_out")(y)
        return jnp.asarray(enlarge(x, self.scale) + y)
