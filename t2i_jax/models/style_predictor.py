"""A network from a picture to the numbers of its style (arXiv 1705.06830), on a MobileNetV2.

Its batch norms are folded into the convolutions, as in the published weights
(weights/magenta_style.py). The MobileNetV2 is that of arXiv 1801.04381, table 2.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.models.efficientnet_lite import Depthwise

# Each stage: (blocks, stride of the first block, expansion, channels).
MOBILENET_V2 = (
    (1, 1, 1, 16),
    (2, 2, 6, 24),
    (3, 2, 6, 32),
    (4, 2, 6, 64),
    (3, 1, 6, 96),
    (3, 2, 6, 160),
    (1, 1, 6, 320),
)
STEM_CHANNELS, HEAD_CHANNELS = 32, 1280


class StylePredictor(nn.Module):
    """A network from pictures in [0, 1], of 256 px as published, to style vectors.

    stages: the rows of a table such as MOBILENET_V2.
    style: numbers of a style vector.
    """

    stages: tuple[tuple[int, int, int, int], ...] = MOBILENET_V2
    style: int = 100

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B {self.style}"]:
        """Return the style vectors."""

        def conv(y, channels, name, side=1, stride=1):
            return nn.Conv(channels, (side, side), stride, name=name)(y)

        def depthwise(y, stride, name):
            bias = self.param(f"{name}_bias", nn.initializers.zeros, y.shape[-1:])
            return Depthwise(3, stride, name=name)(y) + bias

        x, block = nn.relu6(conv(x, STEM_CHANNELS, "stem", 3, 2)), 0
        for count, first, expansion, channels in self.stages:
            for i in range(count):
                y = x
                if expansion > 1:
                    y = nn.relu6(conv(y, expansion * x.shape[-1], f"block_{block}_expand"))
                y = nn.relu6(depthwise(y, first if i == 0 else 1, f"block_{block}_depthwise"))
                y = conv(y, channels, f"block_{block}_project")
                x, block = x + y if x.shape == y.shape else y, block + 1
        x = nn.relu6(conv(x, HEAD_CHANNELS, "head"))
        return nn.Dense(self.style, name="out")(jnp.mean(x, (1, 2)))
