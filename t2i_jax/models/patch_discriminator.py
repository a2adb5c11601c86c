"""The discriminator of patches (arXiv 1611.07004, section 3.2): a logit for each place, of the square of pixels around it."""

import math

import flax.linen as nn


class PatchDiscriminator(nn.Module):
    """Pictures float [B, H, W, C] in [-1, 1] -> logits float [B, h, w] with h = H / 2^levels - 2; positive says "real".

    width: channels of the first level, each level after it has twice as many, up to 8 times. With 3 levels a logit sees 70 x
    70 pixels, with 2 it sees 34, with 1 it sees 16. GroupNorm in place of the paper's BatchNorm, so that no picture changes
    what is said of another.
    """

    width: int = 64
    levels: int = 3

    @nn.compact
    def __call__(self, x):
        for level in range(self.levels + 1):
            stride = 2 if level < self.levels else 1
            features = self.width * min(2**level, 8)
            x = nn.Conv(features, (4, 4), stride, ((1, 1), (1, 1)), use_bias=level == 0, name=f"conv_{level}")(x)
            if level:
                x = nn.GroupNorm(math.gcd(32, features), epsilon=1e-6, name=f"norm_{level}")(x)
            x = nn.leaky_relu(x, 0.2)
        return nn.Conv(1, (4, 4), padding=((1, 1), (1, 1)), name="logits")(x)[..., 0]


def check(levels: int, resolution: int) -> None:
    """ValueError for a picture that is too small for a single logit."""
    if levels < 1 or resolution < 3 * 2**levels:
        raise ValueError(
            f"discriminator.levels is {levels}: 1 or more, and a picture of {resolution} px must be at least 3 * 2^levels wide"
        )
