"""CLIP: a tower for pictures and a tower for captions with one shared embedding space.

Source: arXiv 2103.00020, section 2.4. Each tower is a module of its own: Stable Diffusion's text
encoder is the text tower alone.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from t2i_jax.core.types import AnyArray
from t2i_jax.models.attention import Attention
from t2i_jax.models.layers import Dense

ACTIVATIONS = {
    # The published models were trained with "quick_gelu".
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": functools.partial(nn.gelu, approximate=False),
}

_TEXT = dict(vocab_size=49408, length=77, end=49407)
_B_TEXT = dict(**_TEXT, depth=12, width=512, heads=8)
_L_TEXT = dict(**_TEXT, depth=12, width=768, heads=12)
_B_IMAGE = dict(width=768, depth=12, heads=12)
_L_IMAGE = dict(patch=14, width=1024, depth=24, heads=16)
VARIANTS = {
    "ViT-B/32": dict(embed=512, image=dict(side=224, patch=32, **_B_IMAGE), text=_B_TEXT),
    "ViT-B/16": dict(embed=512, image=dict(side=224, patch=16, **_B_IMAGE), text=_B_TEXT),
    "ViT-L/14": dict(embed=768, image=dict(side=224, **_L_IMAGE), text=_L_TEXT),
    "ViT-L/14-336": dict(embed=768, image=dict(side=336, **_L_IMAGE), text=_L_TEXT),
}
# The text encoders of Stable Diffusion 1 and XL, of 2 (without its last block), and of XL.
TEXT_VARIANTS = {
    "ViT-L/14": _L_TEXT,
    "OpenCLIP-ViT-H": dict(**_TEXT, depth=23, width=1024, heads=16, activation="gelu"),
    "OpenCLIP-ViT-bigG": dict(
        **_TEXT, depth=32, width=1280, heads=20, activation="gelu", projection=1280
    ),
}


def _norm(name, dtype):
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name)


class Block(nn.Module):
    """Attention and a network with one hidden layer, each on a normalised residual branch.

    heads: attention heads.
    mlp: hidden units.
    activation: one of ACTIVATIONS.
    dtype: of the computation.
    """

    heads: int
    mlp: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "B S width"], mask: Bool[Array, "1 1 S S"] | None = None
    ) -> Float[Array, "B S width"]:
        attention = Attention(self.heads, qk_norm=False, dtype=self.dtype, name="attention")
        x = x + attention(_norm("attention_norm", self.dtype)(x), mask=mask)[0]
        y = Dense(self.mlp, dtype=self.dtype, name="mlp_in")(_norm("mlp_norm", self.dtype)(x))
        return x + Dense(x.shape[-1], dtype=self.dtype, name="mlp_out")(
            ACTIVATIONS[self.activation](y)
        )


def _apply_blocks(tower, x, mask=None):
    """Return [x, the output of each block of a tower].

    Call it in the tower's `__call__`: the blocks become layers of the tower.
    """
    hidden = [x]
    for i in range(tower.depth):
        block = Block(
            tower.heads,
            tower.mlp or 4 * tower.width,
            tower.activation,
            tower.dtype,
            name=f"block_{i}",
        )
        hidden.append(block(hidden[-1], mask))
    return hidden


class ImageTower(nn.Module):
    """A vision transformer over patches of a picture and a class token.

    side: of the pictures, in pixels.
    patch: side of a patch, in pixels.
    width: channels of a token.
    depth: number of blocks.
    heads: attention heads per block.
    mlp: hidden units of a block, or 0 for 4 * width.
    activation: one of ACTIVATIONS.
    dtype: of the computation; parameters are float32.
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
    def __call__(
        self, pictures: Float[AnyArray, "B H W 3"]
    ) -> tuple[list[Float[Array, "B tokens width"]], Float[Array, "B width"]]:
        """Return (hidden, pooled).

        hidden: depth + 1 arrays, the class token first: the input of each block, and the output of
            the last one.
        pooled: the class token after the last block, normalised.
        Raises ValueError for pictures of another size.
        """
        if pictures.shape[1:] != (self.side, self.side, 3) or self.side % self.patch:
            raise ValueError(
                f"pictures of shape {pictures.shape[1:]} do not fit: this tower takes "
                f"({self.side}, {self.side}, 3), its side a multiple of its patch {self.patch}"
            )
        size, cells = (self.patch, self.patch), (self.side // self.patch) ** 2
        x = nn.Conv(
            self.width, size, size, "VALID", use_bias=False, dtype=self.dtype, name="patch_in"
        )(pictures)
        first = self.param("class_token", nn.initializers.normal(self.width**-0.5), (self.width,))
        first = jnp.broadcast_to(first, (x.shape[0], 1, self.width)).astype(self.dtype)
        x = jnp.concatenate([first, x.reshape(x.shape[0], cells, self.width)], axis=1)
        x = x + self.param(
            "positions", nn.initializers.normal(0.02), (1 + cells, self.width)
        ).astype(self.dtype)
        hidden = _apply_blocks(self, _norm("norm_in", self.dtype)(x))
        return hidden, _norm("norm_out", self.dtype)(hidden[-1][:, 0])


class TextTower(nn.Module):
    """A causal transformer over tokens.

    Padding needs no mask: it follows the end token, and no earlier token attends to it.

    vocab_size: number of tokens.
    length: the longest caption, in tokens.
    end: the end token.
    width: channels of a token.
    depth: number of blocks.
    heads: attention heads per block.
    mlp: hidden units of a block, or 0 for 4 * width.
    activation: one of ACTIVATIONS.
    projection: channels that the pooled vector is projected to, or 0 to return it as it is.
    dtype: of the computation; parameters are float32.
    """

    vocab_size: int
    length: int
    end: int
    width: int
    depth: int
    heads: int
    mlp: int = 0
    activation: str = "quick_gelu"
    projection: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Int[AnyArray, "B L"]
    ) -> tuple[list[Float[Array, "B L width"]], Float[Array, "B D"]]:
        """Return (hidden, pooled).

        hidden: depth + 1 arrays: the input of each block, and the normalised output of the last
            one. So hidden[-1] is what Stable Diffusion 1 attends to, and hidden[-2] what SDXL does.
        pooled: hidden[-1] at the first token `end`, projected if there is a `projection`.
        Raises ValueError if L is larger than `length`.
        """
        count = tokens.shape[1]
        if count > self.length:
            raise ValueError(
                f"{count} tokens a caption are more than the {self.length} that this tower has "
                "positions for"
            )
        embed = nn.Embed(
            self.vocab_size, self.width, embedding_init=nn.initializers.normal(0.02), name="embed"
        )
        positions = self.param("positions", nn.initializers.normal(0.01), (self.length, self.width))
        causal = jnp.tril(jnp.ones((1, 1, count, count), bool))
        hidden = _apply_blocks(self, (embed(tokens) + positions[:count]).astype(self.dtype), causal)
        hidden[-1] = _norm("norm_out", self.dtype)(hidden[-1])
        ends = jnp.argmax(tokens == self.end, axis=1)
        pooled = hidden[-1][jnp.arange(tokens.shape[0]), ends]
        if self.projection:
            project = Dense(self.projection, use_bias=False, dtype=self.dtype, name="projection")
            pooled = project(pooled)
        return hidden, pooled


class CLIP(nn.Module):
    """Both towers and their projections to the shared space.

    embed: channels of the shared space.
    image: the fields of ImageTower.
    text: the fields of TextTower.
    dtype: of the computation; parameters and the returned vectors are float32.
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

    def embed_image(self, pictures: Float[AnyArray, "B H W 3"]) -> Float[Array, "B embed"]:
        """Return vectors of unit length. Pictures are normalised as the weights expect it."""
        return _unit_length(self.image_projection(self.image_tower(pictures)[1]))

    def embed_text(self, tokens: Int[AnyArray, "B L"]) -> Float[Array, "B embed"]:
        """Return vectors of unit length."""
        return _unit_length(self.text_projection(self.text_tower(tokens)[1]))

    def __call__(
        self, pictures: Float[AnyArray, "B H W 3"], tokens: Int[AnyArray, "N L"]
    ) -> tuple[Float[Array, "B embed"], Float[Array, "N embed"], Float[Array, ""]]:
        """Return (image vectors, text vectors, scale).

        The products of the vectors, multiplied by the scale, are the logits of figure 3. The scale
        is the exponential of a learned number.
        """
        return self.embed_image(pictures), self.embed_text(tokens), jnp.exp(self.log_scale)


def _unit_length(x):
    x = x.astype(jnp.float32)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def param_shapes(net: CLIP) -> Any:
    """Return the parameters of CLIP as shapes: nothing is computed."""
    side, length = net.image["side"], net.text["length"]
    pictures = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)
    return jax.eval_shape(net.init, jax.random.key(0), pictures, tokens)["params"]


def text_param_shapes(tower: TextTower) -> Any:
    """Return the parameters of a text tower as shapes: nothing is computed."""
    tokens = jax.ShapeDtypeStruct((1, tower.length), jnp.int32)
    return jax.eval_shape(tower.init, jax.random.key(0), tokens)["params"]
