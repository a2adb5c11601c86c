"""Hears nothing: for models without a condition. Every caption is the empty one."""

import jax.numpy as jnp
from tokenizers import Regex, Tokenizer, models, normalizers

from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.condition import TextCondition, TextEncoder


def make(config) -> TextEncoder:
    """No parameters, and zeros of width 1 for a condition. No field is used but `length`, of which 1 is enough."""
    del config

    def apply(params, frozen, text, keys=None):
        mask = text["mask"]
        return TextCondition(jnp.zeros((*mask.shape, 1)), jnp.zeros((len(mask), 1)), mask)

    def init(rng, length):
        return {}, apply({}, {}, {"mask": jnp.ones((1, length), bool)})

    return TextEncoder(init, apply, lambda captions: _deaf())


def _deaf() -> Tokenizer:
    """A tokenizer to which every caption is empty, so that not even the mask tells of its length."""
    tokenizer = Tokenizer(models.WordLevel({}))
    tokenizer.normalizer = normalizers.Replace(Regex(r"[\s\S]+"), "")
    return tokenizers.plain(tokenizer)
