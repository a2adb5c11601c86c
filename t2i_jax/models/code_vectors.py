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
    """

    codes: int
    extra: int | None
    width: int
    dtype: Any = jnp.float32

    def setup(self):
        def dense(features, use_bias=False):
            return Dense(features, use_bias=use_bias, dtype=self.dtype)

        self.look, self.look_out = dense(2 * self.width, True), dense(self.width)
        self.head = self.param("head", nn.initializers.zeros, (self.codes, self.width))
        if self.extra is not None:
            self.look_in = dense(self.width)
            self.embed = self.param(
                "embed", nn.initializers.normal(0.5), (self.codes + self.extra, self.width)
            )

    def __call__(
        self, codebook: Float[AnyArray, "codes D"]
    ) -> tuple[Any, Float[Array, "width codes"]]:
        """Return (input vectors, output vectors).

        Input vectors are float32 [codes + extra, width], or None if `extra` is None.
        """
        hidden = nn.gelu(self.look((codebook - codebook.mean(0)) / (codebook.std() + 1e-6)))
        head = (self.head + self.look_out(hidden) * self.width**-0.5).T.astype(self.dtype)
        if self.extra is None:
            return None, head
        return self.embed + jnp.pad(self.look_in(hidden), ((0, self.extra), (0, 0))), head
