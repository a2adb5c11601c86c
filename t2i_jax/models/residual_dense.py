"""A residual dense network that enlarges pictures (arXiv 1802.08797), in the form of idealo's.

The published weights of UpscalerJS ("ESRGAN slim") are of this network (convert/esrgan_slim.py).
Unlike the paper's network, it enlarges by repeating pixels, after convolutions that give each as
many numbers as the square needs.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class ResidualDense(nn.Module):
    """A network from pictures to pictures of `scale` times the sides, both in about [-1, 1].

    Inside, pictures have levels from 0 to 255, as the published weights take them. A pixel depends
    on the small picture's pixels up to 8 + blocks * layers px away.

    scale: how many times as large the sides are.
    width: channels (G0 of the paper).
    blocks: dense blocks (D).
    layers: convolutions of a block (C).
    growth: channels that each of them adds (G).
    """

    scale: int
    width: int = 64
    blocks: int = 2
    layers: int = 1
    growth: int = 4

    @nn.compact
    def __call__(self, x: Float[Array, "B h w 3"]) -> Float[Array, "B H W 3"]:
        """Return the enlarged pictures."""

        def conv(y, channels, side, name):
            return nn.Conv(channels, (side, side), name=name)(y)

        shallow = conv((x + 1) * 127.5, self.width, 3, "shallow_0")
        y, found = conv(shallow, self.width, 3, "shallow_1"), []
        for block in range(self.blocks):
            dense = y
            for layer in range(self.layers):
                name = f"block_{block}_dense_{layer}"
                new = nn.relu(conv(dense, self.growth, 3, name))
                dense = jnp.concatenate([dense, new], -1)
            y = y + conv(dense, self.width, 1, f"block_{block}_fusion")
            found.append(y)
        y = conv(jnp.concatenate(found, -1), self.width, 1, "fusion_0")
        y = shallow + conv(y, self.width, 3, "fusion_1")
        y = nn.relu(conv(y, 64, 5, "up_0"))
        y = nn.relu(conv(y, 32, 3, "up_1"))
        y = conv(y, 3 * self.scale**2, 3, "up_2")
        y = y.repeat(self.scale, axis=1).repeat(self.scale, axis=2)
        return conv(y, 3, 3, "out") / 127.5 - 1
