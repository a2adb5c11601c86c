"""The input and output vectors of a transformer for the codes of a first stage."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.types import AnyArray
from t2i_jax.models.layers import Dense


class CodeVectors(nn.Module):
    """Input and output vectors of codes, from a codebook.

    The vectors of a code are a learned row plus a small network of its entry in the codebook. So
    codes that look alike have similar vectors from the start (docs/recipes.md).

    codes: number of codes.
    extra: number of rows without an entry in the codebook (such as the outside of the picture, the
        mask); they are learned alone. None: there are no input vectors.
    width: channels of the transformer.
    dtype: of the computation; parameters are float32.
    parts: of codes with two parts, how many values each has (`core.first_stage.Codes`). Then each
        value of a part has a learned row, the input vector of a code has the sum of both, and the
        output vectors are those of the values of the first part, then of the second. The entry of a
        value is the mean entry of its codes.
    """

    codes: int
    extra: int | None
    width: int
    dtype: Any = jnp.float32
    parts: tuple[int, ...] = ()

    def setup(self):
        def dense(features, use_bias=False):
            return Dense(features, use_bias=use_bias, dtype=self.dtype)

        self.look, self.look_out = dense(2 * self.width, True), dense(self.width)
        rows = sum(self.parts) or self.codes
        self.head = self.param("head", nn.initializers.zeros, (rows, self.width))
        if self.extra is not None:
            self.look_in = dense(self.width)
            self.embed = self.param(
                "embed", nn.initializers.normal(0.5), (rows + self.extra, self.width)
            )

    def __call__(
        self, codebook: Float[AnyArray, "codes D"]
    ) -> tuple[Any, Float[Array, "width rows"]]:
        """Return (input vectors, output vectors).

        Input vectors are float32 [codes + extra, width], or None if `extra` is None. The rows of
        the output vectors are the codes or, with parts, the values of all parts.
        """
        codebook = jnp.asarray(codebook)
        entries = (codebook - codebook.mean(0)) / (codebook.std() + 1e-6)
        hidden = nn.gelu(self.look(entries))
        hidden_out = nn.gelu(self.look(mean_entries(entries, self.parts))) if self.parts else hidden
        head = (self.head + self.look_out(hidden_out) * self.width**-0.5).T.astype(self.dtype)
        if self.extra is None:
            return None, head
        rows, extra = jnp.split(self.embed, [len(self.embed) - self.extra])
        if self.parts:
            first, second = jnp.split(rows, [self.parts[0]])
            rows = (first[:, None] + second).reshape(self.codes, -1)
        return jnp.concatenate([rows + self.look_in(hidden), extra]), head


def mean_entries(
    entries: Float[Array, "codes D"], parts: tuple[int, ...]
) -> Float[Array, "rows D"]:
    """Return the mean entry of the codes of each value of the first part, then of the second."""
    table = entries.reshape(*parts, -1)
    return jnp.concatenate([table.mean(1), table.mean(0)])
