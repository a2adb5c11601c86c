"""The transformer of FLUX.1: joint blocks of text and picture, then blocks over one sequence.

Source: github.com/black-forest-labs/flux (there is no paper); the joint blocks are those of arXiv
2403.03206, the blocks after them compute attention and network in parallel (arXiv 2302.05442).
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from t2i_jax.core.text import TextCondition
from t2i_jax.core.types import AnyArray
from t2i_jax.models.attention import attend
from t2i_jax.models.layers import Dense
from t2i_jax.models.mmdit import (
    JointBlock,
    Rotation,
    embed_condition,
    modulate,
    modulation,
    project,
    rotate_pairs,
)
from t2i_jax.models.recompute import recomputed

THETA = 10000.0  # of the rotary positions
PATCH = 2  # side of the square of latents that becomes one token

VARIANTS = {
    "FLUX.1-dev": dict(guidance=True),
    "FLUX.1-schnell": dict(guidance=False),
}


class FluxTransformer(nn.Module):
    """A denoising transformer over squares of 2 x 2 latents, jointly with the tokens of the text.

    guidance: whether the strength of guidance is an input. Such a network was distilled from a
        guided one, so that one evaluation per step is enough.
    joint_depth: number of blocks in which text and picture have weights of their own.
    single_depth: number of blocks after them, over one sequence of both.
    heads: attention heads per block.
    axes: channels of a head for each coordinate of a position: (picture, row, column). A head has
        the sum of them, a token heads times as many.
    dtype: of the computation; parameters, norms and softmax are float32.
    remat: what the backward pass computes again (models/recompute.py).
    """

    guidance: bool = True
    joint_depth: int = 19
    single_depth: int = 38
    heads: int = 24
    axes: Sequence[int] = (16, 56, 56)
    dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B h w C"], t: Float[AnyArray, "B"], text: TextCondition
    ) -> Float[Array, "B h w C"]:
        """Return the velocity for latents x at times t in [0, 1], in float32; t = 1 is noise.

        text: `sequence` is attended to, padding too, so that `mask` is not used; `pooled`
            modulates the norms; `vector` is the strength of guidance [B, 1], or None for a network
            without that input.
        Raises ValueError for odd sides, and if `text.vector` does not fit `guidance`.
        """
        if self.guidance != (text.vector is not None):
            raise ValueError(
                "this network needs the strength of guidance as text.vector [B, 1]"
                if self.guidance
                else "this network takes no strength of guidance: text.vector must be None"
            )
        width = self.heads * sum(self.axes)
        condition = embed_condition(t, text, width, self.dtype)
        y = Dense(width, dtype=self.dtype, name="patch_in")(pack(x))
        words = Dense(width, dtype=self.dtype, name="text_in")(text.sequence)
        rows, columns = x.shape[1] // PATCH, x.shape[2] // PATCH
        rotation = rotation_of(positions(words.shape[1], rows, columns), self.axes)
        joint, single = (recomputed(kind, self.remat) for kind in (JointBlock, SingleBlock))
        for i in range(self.joint_depth):
            block = joint(self.heads, True, False, False, self.dtype, name=f"joint_{i}")
            y, words = block(y, words, condition, rotation)
        y, length = jnp.concatenate([words, y], axis=1), words.shape[1]
        for i in range(self.single_depth):
            y = single(self.heads, self.dtype, name=f"single_{i}")(y, condition, rotation)
        scale, shift = modulation(condition, 2, self.dtype, "modulation_out")
        y = modulate(y[:, length:], scale, shift, self.dtype)
        zeros, features = nn.initializers.zeros, PATCH**2 * x.shape[-1]
        y = Dense(features, kernel_init=zeros, dtype=self.dtype, name="patch_out")(y)
        return unpack(y, rows, columns).astype(jnp.float32)


class SingleBlock(nn.Module):
    """Attention and a GELU network in parallel, with one gated linear layer after both.

    heads: attention heads; they divide the width.
    dtype: of the computation.
    """

    heads: int
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S width"],
        condition: Float[Array, "B width"],
        rotation: Rotation,
    ) -> Float[Array, "B S width"]:
        width = x.shape[-1]
        shift, scale, gate = modulation(condition, 3, self.dtype, "modulation")
        y = modulate(x, scale, shift, self.dtype)
        q, k, v = project(y, self.heads, True, self.dtype)
        attended = attend(rotate_pairs(q, rotation), rotate_pairs(k, rotation), v)
        hidden = nn.gelu(Dense(4 * width, dtype=self.dtype, name="mlp_in")(y))
        y = jnp.concatenate([attended.reshape(x.shape), hidden], axis=-1)
        return x + gate.astype(self.dtype) * Dense(width, dtype=self.dtype, name="out")(y)


def pack(x: Float[AnyArray, "B h w C"]) -> Float[Array, "B N D"]:
    """Return a token for each square of 2 x 2 latents, in row order, with D = 4 C.

    As in the published weights, number 4 c + 2 i + j of a token is channel c at row i and column j
    of the square. Raises ValueError for odd sides.
    """
    batch, height, width, channels = x.shape
    if height % PATCH or width % PATCH:
        raise ValueError(f"latents of {height} x {width} are not made of squares of 2 x 2")
    x = jnp.asarray(x)
    x = x.reshape(batch, height // PATCH, PATCH, width // PATCH, PATCH, channels)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(batch, -1, PATCH**2 * channels)


def unpack(y: Float[Array, "B N D"], rows: int, columns: int) -> Float[Array, "B h w C"]:
    """Return latents of rows x columns squares: the inverse of `pack`."""
    y = y.reshape(y.shape[0], rows, columns, -1, PATCH, PATCH).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(y.shape[0], rows * PATCH, columns * PATCH, -1)


def positions(length: int, rows: int, columns: int) -> Float[np.ndarray, "S 3"]:
    """Return (picture, row, column) of each token: zeros for the text, then the squares.

    length: tokens of the text. There is one picture, number 0.
    """
    cells = np.mgrid[:1, :rows, :columns].reshape(3, -1).T
    return np.concatenate([np.zeros((length, 3)), cells])


def rotation_of(positions: Float[np.ndarray, "S axes"], widths: Sequence[int]) -> Rotation:
    """Return the cosines and sines for `rotate_pairs`: widths[i] / 2 angles for coordinate i."""
    angles = np.concatenate(
        [
            place[:, None] * THETA ** (-np.arange(0, width, 2) / width)
            for place, width in zip(positions.T, widths, strict=True)
        ],
        axis=1,
    )
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
