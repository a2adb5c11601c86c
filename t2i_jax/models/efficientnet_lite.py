"""EfficientNet-Lite (arXiv 1905.11946, table 1), for inference.

The Lite versions have no squeeze-and-excitation, and ReLU6 as activation. Lite0 is B0, changed in
this way by its authors for small devices. The first and the last layer are the same in all sizes.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Each stage: (blocks, kernel size, stride of the first block, expansion, channels).
LITE0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS, HEAD_CHANNELS = 32, 1280


def _conv(x, channels: int, kernel: int, stride: int, name: str):
    # SAME as in TensorFlow: the larger half of an odd padding is on the right and below.
    return nn.Conv(channels, (kernel, kernel), stride, use_bias=False, name=name)(x)


def _norm(x, name: str):
    return nn.BatchNorm(use_running_average=True, epsilon=1e-3, name=name)(x)


class Depthwise(nn.Module):
    """A convolution of each channel with a filter of its own, padded as SAME.

    It is a sum of shifted products: on CPU, XLA's grouped convolution took 5 to 15 times as long
    for the sizes of Lite0.

    kernel: side of the filters.
    stride: of the convolution.
    """

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        k, s = self.kernel, self.stride
        weights = self.param("kernel", nn.initializers.lecun_normal(), (k, k, 1, x.shape[-1]))
        padding = jax.lax.padtype_to_pads(x.shape[1:3], (k, k), (s, s), "SAME")
        sides = [-(-side // s) for side in x.shape[1:3]]
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        rows, columns = ([slice(i, i + (side - 1) * s + 1, s) for i in range(k)] for side in sides)
        taps = (x[:, rows[i], columns[j]] * weights[i, j, 0] for i in range(k) for j in range(k))
        return jnp.asarray(sum(taps))


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow (arXiv 1801.04381, figure 4d).

    channels: of the result.
    kernel: side of the filters.
    stride: of the convolution; the sides become ceil(side / stride).
    expansion: channels of the wide layers, over those of the input.
    """

    channels: int
    kernel: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w channels"]:
        y = x
        if self.expansion > 1:
            y = nn.relu6(
                _norm(_conv(y, self.expansion * x.shape[-1], 1, 1, "expand"), "expand_norm")
            )
        y = nn.relu6(
            _norm(Depthwise(self.kernel, self.stride, name="depthwise")(y), "depthwise_norm")
        )
        y = _norm(_conv(y, self.channels, 1, 1, "project"), "project_norm")
        return x + y if y.shape == x.shape else y


class EfficientNetLite(nn.Module):
    """Features and class logits of pictures.

    The variables are `params` and `batch_stats` (running means and variances).

    stages: the rows of a table such as LITE0.
    classes: number of logits.
    """

    stages: tuple[tuple[int, int, int, int, int], ...] = LITE0
    classes: int = 1000

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> dict[str, Any]:
        """Return {"features", "logits", "maps"}.

        x: normalised as the weights expect it; for the published Lite0, 224 px and
            (uint8 - 127) / 128.
        features: [B, 1280], pooled.
        logits: [B, classes].
        maps: the output of the last block at each of the five scales, [B, ceil(H / s), ceil(W / s),
            c]; in Lite0 with (s, c) = (2, 16), (4, 24), (8, 40), (16, 112), (32, 320).
        """
        x = nn.relu6(_norm(_conv(x, STEM_CHANNELS, 3, 2, "stem"), "stem_norm"))
        maps, block = [], 0
        for count, kernel, first, expansion, channels in self.stages:
            if first > 1:  # the block before this stage was the last one at its scale
                maps.append(x)
            for i in range(count):
                x = InvertedResidual(
                    channels, kernel, first if i == 0 else 1, expansion, name=f"block_{block}"
                )(x)
                block += 1
        maps.append(x)
        x = nn.relu6(_norm(_conv(x, HEAD_CHANNELS, 1, 1, "head"), "head_norm"))
        features = jnp.mean(x, (1, 2))
        logits = nn.Dense(self.classes, name="classifier")(features)
        return {"features": features, "logits": logits, "maps": maps}
