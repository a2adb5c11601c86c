"""A network that removes noise from vectors: residual blocks whose norms a condition modulates.

It is the denoising MLP of arXiv 2406.11838 (section 4.3), in place of the transformer of arXiv
2204.06125: a vector alone has no sequence to attend to.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.text import TextCondition
from t2i_jax.models.attention import layer_norm
from t2i_jax.models.layers import Dense, sine_time, time_and_text

TIME_CHANNELS = 256  # of the sine embedding of t


class EmbeddingMLP(nn.Module):
    """A denoiser of vectors.

    width: channels of the network.
    depth: number of blocks.
    dtype: of the computation; parameters and norms are float32.
    """

    width: int = 256
    depth: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B C"], t: Float[Array, "B"], text: TextCondition
    ) -> Float[Array, "B C"]:
        """Return the prediction for noisy x at times t in [0, 1], in float32.

        text: `pooled` and `vector` modulate the norms; `sequence` is not used.
        """
        condition = time_and_text(sine_time(t, TIME_CHANNELS), text, self.width, self.dtype)

        def dense(features, name, **more):
            return Dense(features, dtype=self.dtype, name=name, **more)

        h = dense(self.width, "in")(x)
        for i in range(self.depth):
            parts = dense(3 * self.width, f"modulation_{i}", kernel_init=nn.initializers.zeros)
            shift, scale, gate = jnp.split(parts(condition), 3, axis=-1)
            y = (layer_norm(h) * (1.0 + scale) + shift).astype(self.dtype)
            y = dense(self.width, f"out_{i}")(nn.silu(dense(self.width, f"in_{i}")(y)))
            h = h + (1.0 + gate) * y
        y = dense(x.shape[-1], "out", kernel_init=nn.initializers.zeros)(
            layer_norm(h).astype(self.dtype)
        )
        return y.astype(jnp.float32)
