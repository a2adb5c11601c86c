"""No condition: for unconditional models. Every caption becomes the empty one."""

import jax.numpy as jnp
from tokenizers import Regex, Tokenizer, models, normalizers

from t2i_jax.core.fields import Field
from t2i_jax.core.text import TextCondition, TextEncoder
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.encoder import LENGTH


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.text` for none."""
    del config
    return {"length": LENGTH._replace(meaning="tokens of the empty caption; 1 is enough", low=1)}


def make(config) -> TextEncoder:
    """Return an encoder without parameters, whose condition is zeros of width 1."""
    del config

    def apply(params, frozen, text, keys=None):
        mask = text["mask"]
        return TextCondition(jnp.zeros((*mask.shape, 1)), jnp.zeros((len(mask), 1)), mask)

    def init(rng, length):
        return {}, apply({}, {}, {"mask": jnp.ones((1, length), bool)})

    return TextEncoder(init, apply, lambda captions: _make_tokenizer())


def _make_tokenizer() -> Tokenizer:
    """Return a tokenizer that maps every caption to the empty one.

    The mask must not give away the length of a caption either.
    """
    tokenizer = Tokenizer(models.WordLevel({}))
    tokenizer.normalizer = normalizers.Replace(Regex(r"[\s\S]+"), "")
    return tokenizers.standardise(tokenizer)
