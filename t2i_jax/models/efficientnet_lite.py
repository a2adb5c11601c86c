"""EfficientNet-Lite (arXiv 1905.11946, table 1, without squeeze-and-excitation and with ReLU6), for inference.

Lite0 is B0 so changed by its authors for small devices; its first and last layers are the same in all sizes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

# (blocks, kernel, stride of the first, expansion, channels) of each stage.
LITE0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280


def _conv(x, channels: int, kernel: int, stride: int, name: str):
    # SAME as in TensorFlow: of an odd padding the larger half is right and below.
    return nn.Conv(channels, (kernel, kernel), stride, use_bias=False, name=name)(x)


class Depthwise(nn.Module):
    """A convolution, padded as SAME, of each channel with a filter of its own, as a sum of shifted products.

    XLA's grouped convolution took 5 to 15 times as long on CPU for the sizes of Lite0.
    """

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x):
        k, s = self.kernel, self.stride
        weights = self.param("kernel", nn.initializers.lecun_normal(), (k, k, 1, x.shape[-1]))
        padding = jax.lax.padtype_to_pads(x.shape[1:3], (k, k), (s, s), "SAME")
        sides = [-(-side // s) for side in x.shape[1:3]]
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        rows, columns = ([slice(i, i + (side - 1) * s + 1, s) for i in range(k)] for side in sides)
        return sum(x[:, rows[i], columns[j]] * weights[i, j, 0] for i in range(k) for j in range(k))


def _norm(x, name: str):
    return nn.BatchNorm(use_running_average=True, epsilon=1e-3, name=name)(x)


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow (arXiv 1801.04381, figure 4d): [B, H, W, C] -> [B, ⌈H/stride⌉, ⌈W/stride⌉, D]."""

    channels: int
    kernel: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x):
        y = x
        if self.expansion > 1:
            y = nn.relu6(_norm(_conv(y, self.expansion * x.shape[-1], 1, 1, "expand"), "expand_norm"))
        y = nn.relu6(_norm(Depthwise(self.kernel, self.stride, name="depthwise")(y), "depthwise_norm"))
        y = _norm(_conv(y, self.channels, 1, 1, "project"), "project_norm")
        return x + y if y.shape == x.shape else y


class EfficientNetLite(nn.Module):
    """Pictures to features and class logits. Parameters are `params` and `batch_stats` (running means and variances).

    x: float32 [B, H, W, 3], normalised as the weights want it (224 px and (uint8 - 127) / 128 for the published Lite0).
    Gives features float32 [B, 1280] (pooled), logits [B, classes], and maps: the output of the last block at each of the
    five scales, [B, ⌈H/s⌉, ⌈W/s⌉, c] with (s, c) = (2, 16), (4, 24), (8, 40), (16, 112), (32, 320) in Lite0.
    """

    stages: tuple[tuple[int, int, int, int, int], ...] = LITE0
    classes: int = 1000

    @nn.compact
    def __call__(self, x):
        x = nn.relu6(_norm(_conv(x, STEM, 3, 2, "stem"), "stem_norm"))
        maps, block = [], 0
        for count, kernel, first, expansion, channels in self.stages:
            if first > 1:  # what came before was the last at its scale
                maps.append(x)
            for i in range(count):
                x = InvertedResidual(channels, kernel, first if i == 0 else 1, expansion, name=f"block_{block}")(x)
                block += 1
        maps.append(x)
        x = nn.relu6(_norm(_conv(x, HEAD, 1, 1, "head"), "head_norm"))
        features = jnp.mean(x, (1, 2))
        logits = nn.Dense(self.classes, name="classifier")(features)
        return {"features": features, "logits": logits, "maps": maps}
