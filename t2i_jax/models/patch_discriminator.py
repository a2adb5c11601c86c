"""A discriminator of patches (arXiv 1611.07004, section 3.2).

It gives one logit per place, for the square of pixels around it.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from t2i_jax.models.layers import group_norm


class PatchDiscriminator(nn.Module):
    """A convolutional network from pictures to logits; a positive logit means "real".

    It uses GroupNorm in place of the paper's BatchNorm, so that no picture changes the logits of
    another.

    width: channels of the first level; each later level has twice as many, up to 8 times `width`.
    levels: how often the sides are halved. A logit depends on a square of pixels: 16 px wide with 1
        level, 34 px with 2, 70 px with 3.
    """

    width: int = 64
    levels: int = 3

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w"]:
        """Return logits of pictures in [-1, 1], with h = H / 2^levels - 2."""
        for level in range(self.levels + 1):
            stride = 2 if level < self.levels else 1
            features = self.width * min(2**level, 8)
            x = nn.Conv(
                features,
                (4, 4),
                stride,
                ((1, 1), (1, 1)),
                use_bias=level == 0,
                name=f"conv_{level}",
            )(x)
            if level:
                x = group_norm(x, None, f"norm_{level}")
            x = nn.leaky_relu(x, 0.2)
        return nn.Conv(1, (4, 4), padding=((1, 1), (1, 1)), name="logits")(x)[..., 0]


def check(levels: int, resolution: int) -> None:
    """Raise ValueError for a picture that is too small for a single logit.

    levels: of PatchDiscriminator.
    resolution: side of the pictures in pixels.
    """
    if levels < 1 or resolution < 3 * 2**levels:
        raise ValueError(
            f"discriminator.levels is {levels}: 1 or more, and a picture of {resolution} px must "
            "be at least 3 * 2^levels wide"
        )
