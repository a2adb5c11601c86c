"""Class-conditional models: each distinct caption of the training split is a class."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from t2i_jax.core.fields import Field
from t2i_jax.core.text import TextCondition, TextEncoder
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.encoder import LENGTH, VOCAB_SIZE, WIDTH


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.text` for classes."""
    del config
    return {
        "length": LENGTH,
        "vocab_size": VOCAB_SIZE._replace(meaning="largest number of classes, plus 2", low=3),
        "width": WIDTH._replace(meaning="numbers in the vector of a class"),
    }


def make(config) -> TextEncoder:
    """Return an encoder that looks captions up in a table of `vocab_size` rows of `width` numbers.

    The first two rows are padding and the empty caption, which is "no class". `pooled` is the
    caption's row. In `sequence`, the row of the end token follows it. Captions are those of
    `tokenizer.train_classes`: any other is an error, because there is no picture to draw of it.

    Raises ValueError if `length` is less than 2, for the class and the end.
    """
    if config.length < 2:
        raise ValueError(
            f"text.length is {config.length}; a class takes 2 tokens, itself and the end"
        )
    table = nn.Embed(config.vocab_size, config.width, embedding_init=nn.initializers.normal(0.5))

    def apply(params, frozen, text, keys=None):
        sequence: Any = table.apply({"params": params}, text["tokens"])
        return TextCondition(sequence, sequence[:, 0], text["mask"])

    def init(rng, length):
        text = {"tokens": jnp.zeros((1, length), jnp.int32), "mask": jnp.ones((1, length), bool)}
        params = table.init(rng, text["tokens"])["params"]
        return params, apply(params, {}, text)

    return TextEncoder(
        init, apply, lambda captions: tokenizers.train_classes(captions, config.vocab_size)
    )
