"""What the codes of a first stage go in and come out of a transformer as."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from t2i_jax.models.layers import Dense


class CodeVectors(nn.Module):
    """Input vectors [codes + extra, width] and output vectors [width, codes] of the codes, from codebook float [codes, D].

    A code's vectors are a learned row plus a small network of its entry in the codebook, so that codes that look alike are
    alike from the start (docs/recipes.md). The `extra` rows have no entry: the outside of the picture, the mask. Where it is
    None there are no input vectors.
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
            self.embed = self.param("embed", nn.initializers.normal(0.5), (self.codes + self.extra, self.width))

    def __call__(self, codebook):
        look = nn.gelu(self.look((codebook - codebook.mean(0)) / (codebook.std() + 1e-6)))
        head = (self.head + self.look_out(look) * self.width**-0.5).T.astype(self.dtype)
        return None if self.extra is None else self.embed + jnp.pad(self.look_in(look), ((0, self.extra), (0, 0))), head
