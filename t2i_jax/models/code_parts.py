"""Codes of two parts: the second part is predicted from the first, so two small softmaxes do."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t2i_jax.core.types import AnyArray
from t2i_jax.models.layers import Dense, matmul


def split_codes(
    codes: Int[AnyArray, "*place"], parts: tuple[int, ...]
) -> tuple[Int[AnyArray, "*place"], ...]:
    """Return the parts of codes; without `parts`, the codes themselves."""
    return (codes // parts[1], codes % parts[1]) if parts else (codes,)


class CodeParts(nn.Module):
    """The output layer of a transformer whose codes have two parts.

    log p(code) = log p(first) + log p(second | first). The second one is read from the output of
    the transformer after one more residual branch, which is given the first one.

    parts: how many values each part has.
    width: channels of the transformer.
    dtype: of the computation; parameters are float32.
    """

    parts: tuple[int, ...]
    width: int
    dtype: Any = jnp.float32

    def setup(self):
        def dense(features, use_bias=False):
            return Dense(features, use_bias=use_bias, dtype=self.dtype)

        self.given = self.param("given", nn.initializers.normal(0.5), (self.parts[0], self.width))
        self.hidden, self.out = dense(2 * self.width, True), dense(self.width)

    def first(
        self, x: Float[Array, "*n width"], head: Float[Array, "width rows"]
    ) -> Float[Array, "*n P"]:
        """Return the logits of the first part.

        x: the output of the transformer.
        head: the output vectors of the values of both parts (`CodeVectors`).
        """
        return matmul(x, head[:, : self.parts[0]])

    def second(
        self,
        x: Float[Array, "*n width"],
        head: Float[Array, "width rows"],
        first: Int[AnyArray, "*n"],
    ) -> Float[Array, "*n M"]:
        """Return the logits of the second part, given the first. Arguments are those of `first`."""
        given = x + self.given[first].astype(self.dtype)
        return matmul(x + self.out(nn.gelu(self.hidden(given))), head[:, self.parts[0] :])

    def __call__(
        self,
        x: Float[Array, "*n width"],
        head: Float[Array, "width rows"],
        first: Int[AnyArray, "*n"],
    ) -> tuple[Float[Array, "*n P"], Float[Array, "*n M"]]:
        """Return the logits of both parts in float32. Arguments are those of `second`."""
        logits = self.first(x, head), self.second(x, head, first)
        return logits[0].astype(jnp.float32), logits[1].astype(jnp.float32)

    def every(
        self, x: Float[Array, "B n width"], head: Float[Array, "width rows"]
    ) -> tuple[Float[Array, "B n P"], Float[Array, "B n P M"]]:
        """Return the logits of the first part, and those of the second given each first one."""
        shape = (*x.shape[:2], self.parts[0])
        each = jnp.broadcast_to(jnp.arange(self.parts[0]), shape)
        repeated = jnp.broadcast_to(x[:, :, None], (*shape, x.shape[-1]))
        logits = self.first(x, head), self.second(repeated, head, each)
        return logits[0].astype(jnp.float32), logits[1].astype(jnp.float32)

    def joint(
        self, x: Float[Array, "B n width"], head: Float[Array, "width rows"]
    ) -> Float[Array, "B n codes"]:
        """Return the log-probabilities of all codes."""
        first, second = (jax.nn.log_softmax(logits) for logits in self.every(x, head))
        return (first[..., None] + second).reshape(*x.shape[:2], -1)
