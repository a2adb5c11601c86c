"""A residual network from pictures to pictures of the same size (arXiv 1603.08155; 1703.10593)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

NORMS = ("instance", "none")


class ResNetGenerator(nn.Module):
    """A network from pictures [B, H, W, 3] to pictures of the same size, in [-1, 1].

    2^levels has to divide both sides. It enlarges by repeating pixels before a convolution, instead
    of the paper's transposed convolution, whose strides show in pictures (Odena et al. 2016).

    width: channels of the finest level; each coarser level has twice as many.
    levels: how often the sides are halved; the paper has 2. 0 keeps the details of small pictures.
    depth: residual blocks at the coarsest level; the paper has 6 for 128 px, and 9 above.
    norm: "instance", which makes the mean of each channel of a picture 0, or "none".
    """

    width: int = 64
    levels: int = 2
    depth: int = 9
    norm: str = "instance"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """Return the translated pictures."""

        def conv(y, features, side, name, stride=1):
            edge = (side - 1) // 2
            y = jnp.pad(y, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="reflect")
            y = nn.Conv(features, (side, side), stride, "VALID", name=name)(y)
            if self.norm == "none" or name == "conv_out":
                return y
            return nn.InstanceNorm(name=f"{name}_norm")(y)

        y = nn.relu(conv(x, self.width, 7, "conv_in"))
        for level in range(self.levels):
            y = nn.relu(conv(y, self.width * 2 ** (level + 1), 3, f"down_{level}", 2))
        for block in range(self.depth):
            inner = nn.relu(conv(y, y.shape[-1], 3, f"block_{block}_conv_0"))
            y = y + conv(inner, y.shape[-1], 3, f"block_{block}_conv_1")
        for level in reversed(range(self.levels)):
            y = y.repeat(2, axis=1).repeat(2, axis=2)
            y = nn.relu(conv(y, self.width * 2**level, 3, f"up_{level}"))
        return jnp.tanh(conv(y, 3, 7, "conv_out"))


def check(levels: int, resolution: int) -> None:
    """Raise ValueError for a picture whose sides cannot be halved that often.

    levels: of ResNetGenerator.
    resolution: side of the pictures in pixels.
    """
    if resolution % 2**levels or resolution < 4:
        raise ValueError(
            f"model.levels is {levels}: 2^levels has to divide data.resolution, which is "
            f"{resolution} (and at least 4)"
        )
