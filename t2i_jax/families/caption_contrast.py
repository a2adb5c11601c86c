"""Which caption belongs to which picture, by the features of a GAN's discriminator.

The discriminator learns it from real pictures; the generator's pictures are to be recognised by
it. A drawn picture is so compared with the captions of the whole global batch, not with its own
alone. Source: arXiv 2101.04702, section 4.3.
"""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float, Int

from t2i_jax.core.types import AnyArray
from t2i_jax.families.contrastive_loss import KINDS, contrast
from t2i_jax.models.layers import Dense
from t2i_jax.models.shared_space import unit_length

SCALE = 10.0  # of the products: a temperature of 0.1 (the same, appendix A)


class Projections(nn.Module):
    """Projections of a discriminator's features and of captions to unit vectors of one space.

    channels: of the space.
    """

    channels: int = 128

    @nn.compact
    def __call__(
        self, features: Float[AnyArray, "B *shape"], pooled: Float[AnyArray, "B D"]
    ) -> tuple[Float[Array, "B channels"], Float[Array, "B channels"]]:
        """Return the vectors of (pictures, captions)."""
        flat = features.reshape(len(features), -1)
        image, caption = Dense(self.channels, name="image"), Dense(self.channels, name="caption")
        return unit_length(image(flat)), unit_length(caption(pooled))


def caption_contrast(
    params,
    features: Float[AnyArray, "B *shape"],
    pooled: Float[AnyArray, "B D"],
    tokens: Int[AnyArray, "B L"],
    weight: Float[AnyArray, "B"],
    axis_name: str | None,
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Return (the loss of each picture and its caption, 1 where it is the nearest caption).

    params: of `Projections`.
    features: of the pictures, from a discriminator that computes them without the caption.
    pooled: of the captions, from the discriminator's text encoder.
    tokens: of the captions; equal captions are not compared.
    weight: 0 for rows that only pad the batch.
    axis_name: of pmap, over whose devices the batch is split, or None.
    """
    both: Any = Projections().apply({"params": params}, features, pooled)
    image, caption = both

    def logits(a, b):
        return SCALE * (a @ b.T)

    return contrast(KINDS["softmax"], logits, image, caption, tokens, weight, axis_name)
