"""The words of a decoder that is itself a language model (`model.causal_text`).

A word is a row of the model's embedding table, which is trained with the rest. The table, positions
and tokenizer of a published model come with `init_from` (convert/language_model.py). Without one,
all three start from nothing, and the tokenizer is trained on the captions of the run.
"""

import flax.linen as nn
from jaxtyping import Array, Bool, Int, Key

from t2i_jax.core.fields import Field
from t2i_jax.core.text import TextCondition, TextEncoder
from t2i_jax.text.encoder import SHARED, VOCAB_SIZE, make_trainable, masked_mean


class Words(nn.Module):
    """Word embeddings of `width` numbers, with learned positions. `pooled` is the masked mean.

    positions: how many learned positions there are (as in GPT-2); 0 for none. Raises ValueError if
        there are fewer than L.
    """

    vocab_size: int
    width: int = 128
    positions: int = 0

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
        keys: Key[Array, "B"] | None = None,
    ) -> TextCondition:
        init, length = nn.initializers.normal(0.5), tokens.shape[1]
        x = nn.Embed(self.vocab_size, self.width, embedding_init=init, name="embed")(tokens)
        if self.positions:
            if length > self.positions:
                raise ValueError(
                    f"text.length is {length}: this language model has {self.positions} positions"
                )
            x = x + self.param("positions", init, (self.positions, self.width))[:length]
        return TextCondition(x, masked_mean(x, mask), mask)


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.text` for language_model."""
    del config
    positions = Field(0, "number of learned positions; 0 for none", 0)
    # A published model brings its own tokenizer, of any size.
    return {**SHARED, "vocab_size": VOCAB_SIZE._replace(low=1), "positions": positions}


def make(config) -> TextEncoder:
    """Build a `Words` encoder from the matching fields of `config.text`.

    Trains a tokenizer of `vocab_size` tokens, unless `init_from` brings one.
    """
    return make_trainable(Words, config)
