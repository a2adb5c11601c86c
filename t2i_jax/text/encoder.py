"""Make a text encoder: find it by name, or build it around a network trained with the model."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from t2i_jax.core.fields import Field
from t2i_jax.core.registry import lookup
from t2i_jax.core.text import TextEncoder
from t2i_jax.core.types import AnyArray
from t2i_jax.text import tokenizer as tokenizers

# Fields of `config.text` that several encoders use.
LENGTH = Field(16, "tokens that a caption is cut or padded to, with its special tokens", 2, 2**16)
VOCAB_SIZE = Field(
    1024, "largest number of tokens of the tokenizer", tokenizers.MIN_VOCAB_SIZE, 2**24
)
WIDTH = Field(128, "numbers in the vector of a token", 1, 2**16)
WINDOW = Field(0, "words before and after that are mixed into each word by a linear layer", 0, 1024)
DROPOUT = Field(0.0, "share of numbers set to 0 in training", 0.0, 0.999)
SHARED = {"length": LENGTH, "vocab_size": VOCAB_SIZE, "width": WIDTH}


def make_encoder(config) -> TextEncoder:
    """Return the text encoder that `config.encoder` names.

    config: `config.text`, of which each encoder uses its own fields.
    Raises ValueError, naming the nearest, for an unknown encoder.
    """
    return lookup("text", config.encoder)(config)


def make_trainable(network: type[Any], config) -> TextEncoder:
    """Return the encoder of a network that is trained with the model.

    network: a flax module class with a field `vocab_size`, called with (tokens, mask, keys) ->
        TextCondition. It gets those of its fields that `config` has.
    config: `config.text`.

    Its tokenizer is that of `tokenizer.train`, trained on the captions of the run.
    """
    names = {field.name for field in dataclasses.fields(network)}
    values = {name: value for name, value in config.items() if name in names}
    if "dtype" in values:
        values["dtype"] = jnp.dtype(values["dtype"])  # a string in configs
    module = network(**values)

    def init(rng, length):
        tokens, mask = jnp.zeros((1, length), jnp.int32), jnp.ones((1, length), bool)
        condition, variables = module.init_with_output(rng, tokens, mask)
        return variables["params"], condition

    def apply(params, frozen, text, keys=None):
        tokens, mask = jnp.asarray(text["tokens"]), jnp.asarray(text["mask"])
        return module.apply({"params": params}, tokens, mask, keys)

    return TextEncoder(init, apply, lambda captions: tokenizers.train(captions, module.vocab_size))


def masked_mean(x: Float[AnyArray, "B L D"], mask: Bool[AnyArray, "B L"]) -> Float[Array, "B D"]:
    """Return the mean over the vectors x where the mask is True."""
    weight = mask[..., None].astype(x.dtype)
    return (x * weight).sum(1) / jnp.maximum(weight.sum(1), 1)
