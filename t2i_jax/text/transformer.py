"""A transformer text encoder trained with the model; depth 0 gives plain word embeddings."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from t2i_jax.models.layers import Dense, sine_positions
from t2i_jax.models.transformer import Transformer
from t2i_jax.text.condition import TextCondition, TextEncoder, masked_mean, trained


def mix_near(x, mask, reach: int, dtype=jnp.float32):
    """Vectors x [B, L, D] plus one linear layer ("window") of each and of the `reach` before and after it; 0 adds nothing.

    So a phrase such as "large red ring" is one thing from the start; attention alone learns that late (docs/recipes.md).
    To be called in a module's `__call__`, whose layer it becomes.
    """
    if not reach:
        return x
    words = jnp.pad(jnp.where(mask[..., None], x, 0), ((0, 0), (reach, reach), (0, 0)))
    near = jnp.concatenate([words[:, i : i + x.shape[1]] for i in range(2 * reach + 1)], axis=-1)
    return x + Dense(x.shape[-1], use_bias=False, dtype=dtype, name="window")(near)


class TextTransformer(nn.Module):
    """Tokens int32 [B, L] and mask bool [B, L] -> TextCondition with vectors of `width`; `pooled` is the masked mean.

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
    def __call__(self, tokens, mask, keys=None) -> TextCondition:
        init = nn.initializers.normal(0.5)
        x = nn.Embed(self.vocab_size, self.width, embedding_init=init, dtype=self.dtype, name="embed")(tokens)
        x = mix_near(x, mask, self.window, self.dtype)
        if self.depth:
            x = x + sine_positions(tokens.shape[1], self.width).astype(self.dtype)
            trunk = Transformer(self.depth, self.heads, self.dropout, self.dtype, name="trunk")
            x, _ = trunk(x, mask[:, None, None, :], keys)
        return TextCondition(x, masked_mean(x, mask), mask)


def make(config) -> TextEncoder:
    """A TextTransformer of those of its fields that `config.text` has, and a tokenizer of `vocab_size` for the captions."""
    return trained(TextTransformer, config)
