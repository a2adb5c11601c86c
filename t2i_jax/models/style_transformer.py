"""A network that draws a picture in a style, given as a vector (arXiv 1705.06830).

After each convolution but the first three, the mean and the standard deviation of each channel of a
picture are replaced by numbers that are linear in the style vector (conditional instance norm,
arXiv 1610.07629, equation 5).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-5  # added to the variance
CELL = 4  # px; the sides are halved twice, and doubled twice


class StyleTransformer(nn.Module):
    """A network from pictures and style vectors to pictures of the same size, all in [0, 1].

    The sides are multiples of CELL, and at least 2 CELL.

    width: channels of the first convolution; the paper has 32, the published small network 8.
    blocks: residual blocks at a quarter of the sides.
    """

    width: int = 8
    blocks: int = 5

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W 3"], style: Float[Array, "B S"]
    ) -> Float[Array, "B H W 3"]:
        """Return the pictures in the styles."""

        def conv(y, channels, name, side=3, stride=1, bias=True):
            edge = side // 2
            y = jnp.pad(y, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="reflect")
            return nn.Conv(channels, (side, side), stride, "VALID", use_bias=bias, name=name)(y)

        def styled(y, channels, name, side=3):
            y = conv(y, channels, name, side, bias=False)  # the norm would remove a bias
            scale, shift = (
                nn.Dense(channels, name=f"{name}_{which}")(style)[:, None, None]
                for which in ("scale", "shift")
            )
            mean, variance = (f(y, (1, 2), keepdims=True) for f in (jnp.mean, jnp.var))
            return (y - mean) * jax.lax.rsqrt(variance + EPSILON) * scale + shift

        y = nn.relu(conv(x, self.width, "contract_0", 9))
        y = nn.relu(conv(y, 2 * self.width, "contract_1", stride=2))
        y = nn.relu(conv(y, 4 * self.width, "contract_2", stride=2))
        for block in range(self.blocks):
            inner = nn.relu(styled(y, 4 * self.width, f"block_{block}_0"))
            y = y + styled(inner, 4 * self.width, f"block_{block}_1")
        for i in (1, 2):
            y = y.repeat(2, axis=1).repeat(2, axis=2)
            y = nn.relu(styled(y, 4 * self.width // 2**i, f"expand_{i - 1}"))
        return nn.sigmoid(styled(y, 3, "expand_2", 9))
