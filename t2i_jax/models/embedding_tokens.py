"""One vector as several tokens, which a network attends to (arXiv 2204.06125, section 2.1)."""

import flax.linen as nn
from jaxtyping import Array, Float

from t2i_jax.models.layers import Dense


class EmbeddingTokens(nn.Module):
    """A linear layer from an embedding to tokens.

    tokens: their number.
    width: numbers in each.
    """

    tokens: int
    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B C"]) -> Float[Array, "B tokens width"]:
        return Dense(self.tokens * self.width)(x).reshape(len(x), self.tokens, self.width)
