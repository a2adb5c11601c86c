"""DiT, the diffusion transformer (arXiv 2212.09748), conditioned on text."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from t2i_jax.core.text import TextCondition
from t2i_jax.models.attention import Attention, layer_norm
from t2i_jax.models.block_stack import apply_blocks
from t2i_jax.models.fusion import TEXT_MODES, GatedCrossAttention, Resampler
from t2i_jax.models.layers import (
    Dense,
    Dropout,
    add_positions,
    depth_to_space,
    sine_time,
    space_to_depth,
    time_and_text,
    with_neighbours,
)
from t2i_jax.models.recompute import recomputed
from t2i_jax.models.variants import fields_of

TIME_CHANNELS = 256  # of the sine embedding of t

# arXiv 2212.09748, table 1
_SIZES = {
    "S": dict(width=384, depth=12, heads=6),
    "B": dict(width=768, depth=12, heads=12),
    "L": dict(width=1024, depth=24, heads=16),
    "XL": dict(width=1152, depth=28, heads=16),
}
VARIANTS = {
    f"{name}/{patch}": dict(patch=patch, **size)
    for name, size in _SIZES.items()
    for patch in (2, 4, 8)
}


class Block(nn.Module):
    """Self-attention, cross-attention where `text_mode` has it, and a GELU network.

    Each is a residual branch with a gate; the condition scales and shifts its norm. With "gated",
    the cross-attention comes first and has its own gate. The fields are those of DiT, and:

    grid: that of the patches, if the GELU network sees their neighbours (`with_neighbours`).
    """

    heads: int
    mlp_ratio: float
    text_mode: str
    dropout: float
    qk_norm: bool
    gate_init: float
    dtype: Any
    grid: tuple[int, int] | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N width"],
        condition: Float[Array, "B width"],
        text: Float[Array, "B L width"] | None,
        mask: Bool[Array, "B K"] | None,
        keys: Key[Array, "B"] | None,
    ) -> Float[Array, "B N width"]:
        """Apply the block.

        text: what x attends to, or None if there is nothing besides x itself.
        mask: that of `text`, or of x if `text` is None.
        """
        width, hidden = x.shape[-1], int(self.mlp_ratio * x.shape[-1])
        own_mask = mask if text is None else None
        if self.text_mode == "gated":
            assert text is not None and mask is not None
            sizes = (self.heads, hidden, self.dropout, self.qk_norm, self.dtype)
            x = GatedCrossAttention(*sizes, name="fusion")(x, text, mask, keys)
        cross = self.text_mode in ("cross", "resampler")
        branches = 3 if cross else 2
        shifts, scales, gates = _modulation(condition, width, branches, self.gate_init, self.dtype)

        def add(x, i, branch, name):
            y = layer_norm(x) * (1.0 + scales[i]) + shifts[i]
            y = Dropout(self.dropout, name=f"{name}_dropout")(branch(y.astype(self.dtype)), keys)
            return x + gates[i].astype(self.dtype) * y

        def mlp(y):
            y = with_neighbours(y, self.grid) if self.grid else y
            y = nn.gelu(Dense(hidden, dtype=self.dtype, name="mlp_in")(y))
            return Dense(width, dtype=self.dtype, name="mlp_out")(y)

        attention = Attention(self.heads, self.qk_norm, dtype=self.dtype, name="attention")
        x = add(x, 0, lambda y: attention(y, mask=own_mask)[0], "attention")
        if cross:
            cross_attention = Attention(
                self.heads, self.qk_norm, dtype=self.dtype, name="cross_attention"
            )
            x = add(x, 2, lambda y: cross_attention(y, text, mask)[0], "cross_attention")
        return add(x, 1, mlp, "mlp")


class DiT(nn.Module):
    """A denoising transformer over patches. Time and text modulate its norms.

    patch: side of the square of pixels that becomes one token.
    width: channels of a token.
    depth: number of blocks.
    heads: attention heads per block.
    mlp_ratio: hidden units of a block's network, over `width`.
    text_mode: how the words reach the patches. "joint": they join them in self-attention, with the
        same weights; "cross": each block has a cross-attention branch; "gated": cross-attention and
        a network of its own, behind gates that start closed; "resampler": cross-attention to
        `queries` vectors that stand for the words; "film": not at all. In all of them, the vector
        of the caption scales and shifts the norms (FiLM, arXiv 1709.07871).
    dropout: probability of dropping a number of a residual branch in training.
    qk_norm: normalise queries and keys.
    gate_init: where the gates of the residual branches start; 0 is adaLN-zero, where every block
        starts as the identity.
    overlap: each patch enters together with its eight neighbours (a stem of stride `patch` and
        width 3 `patch`); the paper's does not.
    local: the GELU network of a block sees some channels of the patches beside its own
        (`with_neighbours`), and a linear layer adds what enters to the output; the paper has
        neither.
    features: numbers of the result for each pixel; 0: as many as x has.
    queries: with "resampler": vectors that stand for the words.
    dtype: of the computation; parameters, norms and softmax are float32.
    remat: what the backward pass computes again (models/recompute.py).
    scan: apply the blocks in a loop that is compiled once (models/block_stack.py).
    """

    patch: int = 2
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    text_mode: str = "joint"
    dropout: float = 0.0
    qk_norm: bool = True
    gate_init: float = 0.0
    overlap: bool = False
    local: bool = False
    features: int = 0
    queries: int = 8
    dtype: Any = jnp.float32
    remat: str = "none"
    scan: bool = False

    @property
    def text_attention(self) -> str:
        """How tokens and cells attend to each other (models/word_attention.py); "" if not."""
        return TEXT_MODES.get(self.text_mode, "")

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        t: Float[Array, "B"],
        text: TextCondition,
        keys: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B H W features"]:
        """Return the prediction for noisy x at times t in [0, 1], in float32.

        text: `sequence` is attended to, unless text_mode is "film"; `pooled` and `vector` modulate
            the norms.
        keys: for dropout; None for no dropout.
        Raises ValueError if H or W is not a multiple of `patch`, or `width` not one of `heads`.
        """
        batch, height, width, channels = x.shape
        p = self.patch
        if self.scan and self.dropout:
            raise ValueError("a scan over the blocks needs a dropout of 0")
        if self.text_mode not in TEXT_MODES:
            raise ValueError(f"text_mode is {self.text_mode!r}; it is {', '.join(TEXT_MODES)}")
        if height % p or width % p:
            raise ValueError(f"an image of {height} x {width} is not made of patches of {p} x {p}")
        grid = (height // p, width // p)
        condition = time_and_text(sine_time(t, TIME_CHANNELS), text, self.width, self.dtype)

        x = space_to_depth(x, p)
        if self.overlap:
            padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            near = [padded[:, i : i + grid[0], j : j + grid[1]] for i in range(3) for j in range(3)]
            x = jnp.concatenate(near, axis=-1)
        entered = x.reshape(batch, -1, x.shape[-1])
        x = add_positions(self._dense("patch_in")(entered), grid)
        count, (words, mask) = x.shape[1], self._words(text, keys)
        if self.text_mode == "joint":
            x = jnp.concatenate([x, words], axis=1)
            words, mask = None, jnp.concatenate([jnp.ones((batch, count), bool), mask], axis=1)

        block = recomputed(Block, self.remat)
        fields = (
            self.heads,
            self.mlp_ratio,
            self.text_mode,
            self.dropout,
            self.qk_norm,
            self.gate_init,
            self.dtype,
            grid if self.local else None,
        )
        inputs = (condition, words, mask, keys)
        x = apply_blocks(self, block, fields, self.depth, x, *inputs, scan=self.scan)

        (shift,), (scale,), _ = _modulation(condition, self.width, 1, None, self.dtype)
        x = (layer_norm(x[:, :count]) * (1.0 + scale) + shift).astype(self.dtype)
        x = x + self._dense("skip")(entered) if self.local else x
        features = p * p * (self.features or channels)
        x = self._dense("patch_out", features, kernel_init=nn.initializers.zeros)(x)
        return depth_to_space(x.reshape(batch, *grid, -1), p).astype(jnp.float32)

    def _words(self, text, keys) -> tuple[Any, Any]:
        """Return (what the patches attend to besides themselves, its mask), or None for each."""
        if self.text_mode == "film":
            return None, None
        words = self._dense("text_in")(text.sequence)
        if self.text_mode != "resampler":
            return words, text.mask
        hidden = int(self.mlp_ratio * self.width)
        sizes = (self.heads, hidden, self.dropout, self.qk_norm, self.dtype)
        return Resampler(self.queries, *sizes, name="resampler")(words, text.mask, keys), None

    def _dense(self, name, features=None, **kwargs):
        return Dense(features or self.width, dtype=self.dtype, name=name, **kwargs)


def make(config) -> DiT:
    """Return the DiT of `config.model`: the fields of DiT, and `variant`, a name of VARIANTS."""
    return DiT(**fields_of(config, VARIANTS))


def _modulation(condition, width, branches, gate_init, dtype):
    """Return (shifts, scales, gates), each `branches` arrays float32 [B, 1, width].

    They start as constants: 0, 0 and `gate_init`. If `gate_init` is None, there are no gates.
    """
    start = [0.0] * 2 * branches + ([] if gate_init is None else [gate_init] * branches)

    def bias_init(key, shape, dtype=jnp.float32):
        return jnp.repeat(jnp.asarray(start, dtype), width)

    dense = Dense(
        len(start) * width,
        kernel_init=nn.initializers.zeros,
        bias_init=bias_init,
        dtype=dtype,
        name="modulation",
    )
    parts = jnp.split(dense(condition).astype(jnp.float32)[:, None], len(start), axis=-1)
    return parts[:branches], parts[branches : 2 * branches], parts[2 * branches :]
