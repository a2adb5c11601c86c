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

    def __call__(
        self,
        x: Float[Array, "B n width"],
        head: Float[Array, "width rows"],
        first: Int[AnyArray, "B n"],
    ) -> tuple[Float[Array, "B n P"], Float[Array, "B n M"]]:
        """Return the logits of the first part, and of the second given the first.

        x: the output of the transformer.
        head: the output vectors of the values of both parts (`CodeVectors`).
        """
        of_first, of_second = jnp.split(head, [self.parts[0]], axis=1)
        given = self._given(x, self.given[first].astype(self.dtype))
        first_logits, second_logits = matmul(x, of_first), matmul(given, of_second)
        return first_logits.astype(jnp.float32), second_logits.astype(jnp.float32)

    def joint(
        self, x: Float[Array, "B n width"], head: Float[Array, "width rows"]
    ) -> Float[Array, "B n codes"]:
        """Return the log-probabilities of all codes."""
        of_first, of_second = jnp.split(head, [self.parts[0]], axis=1)
        first = jax.nn.log_softmax(matmul(x, of_first).astype(jnp.float32))
        given = self._given(x[:, :, None], self.given.astype(self.dtype))
        second = jax.nn.log_softmax(matmul(given, of_second).astype(jnp.float32))
        return (first[..., None] + second).reshape(*x.shape[:2], -1)

    def _given(self, x, given):
        """Return the transformer's output x for the second part, where `given` is the first."""
        return x + self.out(nn.gelu(self.hidden(x + given)))
