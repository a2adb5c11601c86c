"""A residual network over an array as one vector, with no notion of place, conditioned on text.

For latents that describe a picture as a whole (models/eigenpictures.py), and for embeddings
(families/prior.py). Its blocks are those of DiT (arXiv 2212.09748, adaLN) without attention, for a
picture that is one token; compare the denoising MLP of arXiv 2406.11838, section 4.3.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from t2i_jax.core.text import TextCondition
from t2i_jax.models.attention import layer_norm
from t2i_jax.models.layers import Dense, Dropout, sine_time, time_and_text

TIME_CHANNELS = 256  # of the sine embedding of t


class LatentMLP(nn.Module):
    """A denoising network of `depth` residual blocks. Time and text modulate their norms.

    width: channels.
    depth: number of blocks.
    mlp_ratio: hidden units of a block, over `width`.
    prototypes: number of latents of which the prediction is a mixture; 0: it is linear. They are
        parameters, and start as the latents of training pictures (families/diffusion.py).
    dropout: probability of dropping a number of a residual branch in training.
    dtype: of the computation; parameters and norms are float32.
    """

    width: int = 384
    depth: int = 4
    mlp_ratio: float = 4.0
    prototypes: int = 0
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        t: Float[Array, "B"],
        text: TextCondition,
        keys: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B H W C"]:
        """Return the prediction for noisy x at times t in [0, 1], in float32.

        text: `pooled` and `vector` are used.
        keys: for dropout; None for no dropout.
        """

        def dense(features, name, **more):
            return Dense(features, dtype=self.dtype, name=name, **more)

        condition = time_and_text(sine_time(t, TIME_CHANNELS), text, self.width, self.dtype)

        def modulated(h, name):
            scale, shift = jnp.split(dense(2 * self.width, name)(condition), 2, axis=-1)
            return (layer_norm(h) * (1.0 + scale) + shift).astype(self.dtype)

        h = dense(self.width, "in")(x.reshape(len(x), -1))
        for i in range(self.depth):
            y = modulated(h, f"modulation_{i}")
            y = nn.gelu(dense(int(self.mlp_ratio * self.width), f"mlp_in_{i}")(y))
            y = dense(self.width, f"mlp_out_{i}")(y)
            h = h + Dropout(self.dropout, name=f"dropout_{i}")(y, keys)
        y = modulated(h, "modulation_out")
        zeros, size = nn.initializers.zeros, math.prod(x.shape[1:])
        if self.prototypes:
            scores = dense(self.prototypes, "scores", kernel_init=zeros)(y)
            scores += dense(self.prototypes, "scores_of_text", kernel_init=zeros)(text.pooled)
            table = nn.Embed(self.prototypes, size, dtype=self.dtype, name="prototypes").embedding
            y = nn.softmax(scores.astype(jnp.float32)) @ table
        else:
            y = dense(size, "out", kernel_init=zeros)(y)
        return y.reshape(x.shape).astype(jnp.float32)


def make(config) -> LatentMLP:
    """Return the network of `config.model`: the fields of LatentMLP."""
    return LatentMLP(**{name: value for name, value in config.items() if name != "network"})
