"""A transformer text encoder trained with the model; depth 0 gives word embeddings alone."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from t2i_jax.core.fields import Field
from t2i_jax.core.text import TextCondition, TextEncoder
from t2i_jax.models.layers import Dense, sine_positions
from t2i_jax.models.transformer import Transformer
from t2i_jax.text.encoder import DROPOUT, SHARED, WINDOW, make_trainable, masked_mean


def mix_near(
    x: Float[Array, "B L D"], mask: Bool[Array, "B L"], reach: int, dtype: Any = jnp.float32
) -> Float[Array, "B L D"]:
    """Add to each vector one linear layer of itself and of the `reach` vectors on either side.

    Reach 0 adds nothing. So a phrase such as "large red ring" is one object from the start;
    attention alone learns that late (docs/recipes.md). Call it in a module's `__call__`: the layer
    becomes the module's own, with the name "window".
    """
    if not reach:
        return x
    words = jnp.pad(jnp.where(mask[..., None], x, 0), ((0, 0), (reach, reach), (0, 0)))
    near = jnp.concatenate([words[:, i : i + x.shape[1]] for i in range(2 * reach + 1)], axis=-1)
    return x + Dense(x.shape[-1], use_bias=False, dtype=dtype, name="window")(near)


class TextTransformer(nn.Module):
    """A transformer over word embeddings of `width` numbers. `pooled` is the masked mean.

    window: the reach of `mix_near` over the word embeddings.
    """

    vocab_size: int
    width: int = 128
    depth: int = 2
    heads: int = 4
    window: int = 0
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
        keys: Key[Array, "B"] | None = None,
    ) -> TextCondition:
        init = nn.initializers.normal(0.5)
        x = nn.Embed(
            self.vocab_size, self.width, embedding_init=init, dtype=self.dtype, name="embed"
        )(tokens)
        x = mix_near(x, mask, self.window, self.dtype)
        if self.depth:
            x = x + sine_positions(tokens.shape[1], self.width).astype(self.dtype)
            trunk = Transformer(self.depth, self.heads, self.dropout, self.dtype, name="trunk")
            x, _ = trunk(x, mask[:, None, None, :], keys)
        return TextCondition(x, masked_mean(x, mask), mask)


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.text` for transformer."""
    del config
    return {
        **SHARED,
        "depth": Field(2, "number of layers; 0 for word embeddings alone", 0, 1024),
        "heads": Field(4, "attention heads of a layer", 1, 1024),
        "window": WINDOW,
        "dropout": DROPOUT,
        "dtype": Field(
            "float32", "type of the numbers computed with", choices=("float32", "bfloat16")
        ),
    }


def make(config) -> TextEncoder:
    """Build a `TextTransformer` encoder from the matching fields of `config.text`."""
    return make_trainable(TextTransformer, config)
