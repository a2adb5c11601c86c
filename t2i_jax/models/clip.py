"""CLIP: a tower for pictures and a tower for captions that meet in one space (arXiv 2103.00020, section 2.4).

Each tower is a module of its own: Stable Diffusion's text encoder is the text tower alone.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from t2i_jax.models.attention import Attention
from t2i_jax.models.layers import Dense

ACTIVATIONS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # what the published models were trained with
    "gelu": functools.partial(nn.gelu, approximate=False),
}

_TEXT = dict(vocab_size=49408, length=77, end=49407, depth=12)
_B_TEXT, _L_TEXT = dict(**_TEXT, width=512, heads=8), dict(**_TEXT, width=768, heads=12)
_B_IMAGE, _L_IMAGE = dict(width=768, depth=12, heads=12), dict(patch=14, width=1024, depth=24, heads=16)
VARIANTS = {
    "ViT-B/32": dict(embed=512, image=dict(side=224, patch=32, **_B_IMAGE), text=_B_TEXT),
    "ViT-B/16": dict(embed=512, image=dict(side=224, patch=16, **_B_IMAGE), text=_B_TEXT),
    "ViT-L/14": dict(embed=768, image=dict(side=224, **_L_IMAGE), text=_L_TEXT),
    "ViT-L/14-336": dict(embed=768, image=dict(side=336, **_L_IMAGE), text=_L_TEXT),
}


def _norm(name, dtype):
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name)


class Block(nn.Module):
    """Attention and a network of `mlp` hidden units, each on a normalised residual branch. x [B, S, width] to the same."""

    heads: int
    mlp: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x, mask=None):
        attention = Attention(self.heads, qk_norm=False, dtype=self.dtype, name="attention")
        x = x + attention(_norm("attention_norm", self.dtype)(x), mask=mask)[0]
        y = Dense(self.mlp, dtype=self.dtype, name="mlp_in")(_norm("mlp_norm", self.dtype)(x))
        return x + Dense(x.shape[-1], dtype=self.dtype, name="mlp_out")(ACTIVATIONS[self.activation](y))


def _through_blocks(tower, x, mask=None):
    """[x, then what comes out of each block of a tower]; called in the tower's `__call__`, whose layers they become."""
    hidden = [x]
    for i in range(tower.depth):
        block = Block(tower.heads, tower.mlp or 4 * tower.width, tower.activation, tower.dtype, name=f"block_{i}")
        hidden.append(block(hidden[-1], mask))
    return hidden


class ImageTower(nn.Module):
    """A vision transformer: pictures float [B, side, side, 3] -> (hidden, pooled [B, width]).

    hidden: depth + 1 arrays [B, 1 + cells, width], the class token first: what goes into each block, and what comes out of
    the last. pooled: the class token at the end, normalised. mlp: hidden units of a block, 0 for 4 * width.
    """

    side: int
    patch: int
    width: int
    depth: int
    heads: int
    mlp: int = 0
    activation: str = "quick_gelu"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pictures):
        if pictures.shape[1:] != (self.side, self.side, 3) or self.side % self.patch:
            raise ValueError(
                f"pictures of shape {pictures.shape[1:]} do not fit: this tower takes ({self.side}, {self.side}, 3), its side"
                f" a multiple of its patch {self.patch}"
            )
        size, cells = (self.patch, self.patch), (self.side // self.patch) ** 2
        x = nn.Conv(self.width, size, size, "VALID", use_bias=False, dtype=self.dtype, name="patch_in")(pictures)
        first = self.param("class_token", nn.initializers.normal(self.width**-0.5), (self.width,))
        first = jnp.broadcast_to(first, (x.shape[0], 1, self.width)).astype(self.dtype)
        x = jnp.concatenate([first, x.reshape(x.shape[0], cells, self.width)], axis=1)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1 + cells, self.width)).astype(self.dtype)
        hidden = _through_blocks(self, _norm("norm_in", self.dtype)(x))
        return hidden, _norm("norm_out", self.dtype)(hidden[-1][:, 0])


class TextTower(nn.Module):
    """A causal transformer: tokens int32 [B, L], L at most `length` -> (hidden, pooled [B, width]).

    hidden: depth + 1 arrays [B, L, width]: what goes into each block, and the normalised output of the last. So hidden[-1]
    is the sequence that Stable Diffusion 1 attends to, hidden[-2] that of SDXL. pooled: hidden[-1] at the first token `end`.
    Nothing hides padding: it stands after the end, where no earlier token looks.
    """

    vocab_size: int
    length: int
    end: int
    width: int
    depth: int
    heads: int
    mlp: int = 0
    activation: str = "quick_gelu"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens):
        count = tokens.shape[1]
        if count > self.length:
            raise ValueError(f"{count} tokens a caption are more than the {self.length} that this tower has positions for")
        embed = nn.Embed(self.vocab_size, self.width, embedding_init=nn.initializers.normal(0.02), name="embed")
        positions = self.param("positions", nn.initializers.normal(0.01), (self.length, self.width))
        causal = jnp.tril(jnp.ones((1, 1, count, count), bool))
        hidden = _through_blocks(self, (embed(tokens) + positions[:count]).astype(self.dtype), causal)
        hidden[-1] = _norm("norm_out", self.dtype)(hidden[-1])
        ends = jnp.argmax(tokens == self.end, axis=1)
        return hidden, hidden[-1][jnp.arange(tokens.shape[0]), ends]


class CLIP(nn.Module):
    """Both towers and their projections: (pictures, tokens) -> (image [B, embed], text [B, embed], scale).

    The vectors are float32 of unit length; scale, the exponential of a learned number, multiplies their products to
    give logits (figure 3 of the paper). image, text: the fields of ImageTower and TextTower.
    """

    embed: int
    image: dict
    text: dict
    dtype: Any = jnp.float32

    def setup(self):
        self.image_tower = ImageTower(**self.image, dtype=self.dtype)
        self.text_tower = TextTower(**self.text, dtype=self.dtype)
        self.image_projection = Dense(self.embed, use_bias=False, dtype=self.dtype)
        self.text_projection = Dense(self.embed, use_bias=False, dtype=self.dtype)
        self.log_scale = self.param("log_scale", nn.initializers.constant(math.log(1 / 0.07)), ())

    def embed_image(self, pictures):
        """Pictures float [B, side, side, 3], normalised as the weights want it, as vectors [B, embed] of unit length."""
        return _unit(self.image_projection(self.image_tower(pictures)[1]))

    def embed_text(self, tokens):
        """Tokens int32 [B, L] as vectors [B, embed] of unit length."""
        return _unit(self.text_projection(self.text_tower(tokens)[1]))

    def __call__(self, pictures, tokens):
        return self.embed_image(pictures), self.embed_text(tokens), jnp.exp(self.log_scale)


def _unit(x):
    x = x.astype(jnp.float32)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
