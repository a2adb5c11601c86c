"""SigLIP as it is published: a tower for pictures and one for captions (arXiv 2303.15343).

Pictures are pooled by attention of a learned query (arXiv 1810.00825, equation 10), captions are
read in both directions, and their last token is what is kept.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t2i_jax.core.types import AnyArray
from t2i_jax.models.attention import Attention
from t2i_jax.models.layers import Dense
from t2i_jax.models.shared_space import unit_length
from t2i_jax.models.transformer import Transformer, make_norm

EPSILON = 1e-6


def _trunk(tower) -> Transformer:
    """Return the blocks of a tower and the last norm. Call it in the tower's `__call__`."""
    block = dict(norm="layer", epsilon=EPSILON, hidden=tower.mlp, bias=True, qk_norm=False)
    return Transformer(tower.depth, tower.heads, block=block, name="trunk")


class AttentionPool(nn.Module):
    """Attention of one learned query over a sequence, and a hidden layer on a residual branch.

    heads: attention heads.
    mlp: hidden units.
    """

    heads: int
    mlp: int

    @nn.compact
    def __call__(self, x: Float[Array, "B S width"]) -> Float[Array, "B width"]:
        width = x.shape[-1]
        probe = self.param("probe", nn.initializers.normal(width**-0.5), (1, 1, width))
        probe = jnp.broadcast_to(probe, (len(x), 1, width))
        pooled, _ = Attention(self.heads, qk_norm=False, name="attention")(probe, x)
        y = make_norm("layer", EPSILON, jnp.float32, "mlp_norm")(pooled)
        y = Dense(width, name="mlp_out")(nn.gelu(Dense(self.mlp, name="mlp_in")(y)))
        return (pooled + y)[:, 0]


class ImageTower(nn.Module):
    """A vision transformer over the patches of a picture.

    side: of the pictures, in pixels.
    patch: side of a patch, in pixels.
    width: channels of a patch.
    depth: number of blocks.
    heads: attention heads per block.
    mlp: hidden units of a block.
    """

    side: int
    patch: int
    width: int
    depth: int
    heads: int
    mlp: int

    @nn.compact
    def __call__(self, pictures: Float[AnyArray, "B H W 3"]) -> Float[Array, "B width"]:
        """Return the pooled vectors. Raises ValueError for pictures of another size."""
        if pictures.shape[1:] != (self.side, self.side, 3):
            raise ValueError(
                f"pictures of shape {pictures.shape[1:]} do not fit: this tower takes "
                f"({self.side}, {self.side}, 3)"
            )
        size, cells = (self.patch, self.patch), (self.side // self.patch) ** 2
        x = nn.Conv(self.width, size, size, "VALID", name="patch_in")(pictures)
        positions = self.param("positions", nn.initializers.normal(0.02), (cells, self.width))
        x, _ = _trunk(self)(x.reshape(len(x), cells, self.width) + positions, None)
        return AttentionPool(self.heads, self.mlp, name="pool")(x)


class TextTower(nn.Module):
    """A bidirectional transformer over tokens. Padding is read like any token.

    vocab_size: number of tokens.
    length: tokens of a caption, padding included.
    width: channels of a token.
    depth: number of blocks.
    heads: attention heads per block.
    mlp: hidden units of a block.
    channels: of the result.
    """

    vocab_size: int
    length: int
    width: int
    depth: int
    heads: int
    mlp: int
    channels: int

    @nn.compact
    def __call__(self, tokens: Int[AnyArray, "B L"]) -> Float[Array, "B channels"]:
        """Return the projection of the last token. Raises ValueError if L is not `length`."""
        if tokens.shape[1] != self.length:
            raise ValueError(
                f"{tokens.shape[1]} tokens a caption: this tower was trained with captions padded "
                f"to {self.length}"
            )
        init = nn.initializers.normal(0.02)
        x = nn.Embed(self.vocab_size, self.width, embedding_init=init, name="embed")(tokens)
        x, _ = _trunk(self)(x + self.param("positions", init, (self.length, self.width)), None)
        return Dense(self.channels, name="head")(x[:, -1])


class SigLIP(nn.Module):
    """Both towers, with the learned scale and bias of their products.

    image: the fields of ImageTower.
    text: the fields of TextTower.
    """

    image: dict
    text: dict

    def setup(self):
        self.image_tower = ImageTower(**self.image)
        self.text_tower = TextTower(**self.text)
        self.log_scale = self.param("log_scale", nn.initializers.constant(math.log(10.0)), (1,))
        self.offset = self.param("offset", nn.initializers.constant(-10.0), (1,))

    def embed_image(self, pictures: Float[AnyArray, "B H W 3"]) -> Float[Array, "B D"]:
        """Return vectors of unit length of pictures in [-1, 1]."""
        return unit_length(self.image_tower(pictures))

    def embed_text(self, tokens: Int[AnyArray, "B L"]) -> Float[Array, "B D"]:
        """Return vectors of unit length."""
        return unit_length(self.text_tower(tokens))

    def __call__(
        self, pictures: Float[AnyArray, "B H W 3"], tokens: Int[AnyArray, "N L"]
    ) -> Float[Array, "B N"]:
        """Return the logits of each picture and each caption belonging together."""
        products = self.embed_image(pictures) @ self.embed_text(tokens).T
        return jnp.exp(self.log_scale) * products + self.offset


def param_shapes(net: SigLIP) -> Any:
    """Return the parameters of SigLIP as shapes: nothing is computed."""
    side, length = net.image["side"], net.text["length"]
    pictures = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)
    return jax.eval_shape(net.init, jax.random.key(0), pictures, tokens)["params"]
