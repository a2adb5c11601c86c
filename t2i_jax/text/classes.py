"""Each distinct caption of the training split is a class with a vector of its own: class-conditional models."""

import flax.linen as nn
import jax.numpy as jnp

from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.condition import TextCondition, TextEncoder


def make(config) -> TextEncoder:
    """A table of `vocab_size` rows of `width` numbers; the first two are padding and the empty caption, "no class".

    `pooled` is the caption's row; in `sequence` that of the end token follows it. Captions are those of
    `tokenizer.train_whole`: any other is an error, as there is no picture to draw of it.
    Raises ValueError if `length` is less than 2, the class and the end.
    """
    if config.length < 2:
        raise ValueError(f"text.length is {config.length}; a class takes 2 tokens, itself and the end")
    table = nn.Embed(config.vocab_size, config.width, embedding_init=nn.initializers.normal(0.5))

    def apply(params, frozen, text, keys=None):
        sequence = table.apply({"params": params}, text["tokens"])
        return TextCondition(sequence, sequence[:, 0], text["mask"])

    def init(rng, length):
        text = {"tokens": jnp.zeros((1, length), jnp.int32), "mask": jnp.ones((1, length), bool)}
        params = table.init(rng, text["tokens"])["params"]
        return params, apply(params, {}, text)

    return TextEncoder(init, apply, lambda captions: tokenizers.train_whole(captions, config.vocab_size))
