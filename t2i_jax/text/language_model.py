"""The words of a decoder that is a language model itself (`model.causal_text`): rows of its table, trained with the rest.

The table, positions and tokenizer of a published model come with `init_from` (convert/language_model.py). Without one, all
three are made for the run, the tokenizer from its captions.
"""

import flax.linen as nn

from t2i_jax.text.condition import TextCondition, TextEncoder, masked_mean, trained


class Words(nn.Module):
    """Tokens int32 [B, L] and mask bool [B, L] -> TextCondition with vectors of `width`; `pooled` is the masked mean.

    positions: so many learned ones are added, as in GPT-2; 0 for none. ValueError if there are fewer than L.
    """

    vocab_size: int
    width: int = 128
    positions: int = 0

    @nn.compact
    def __call__(self, tokens, mask, keys=None) -> TextCondition:
        init, length = nn.initializers.normal(0.5), tokens.shape[1]
        x = nn.Embed(self.vocab_size, self.width, embedding_init=init, name="embed")(tokens)
        if self.positions:
            if length > self.positions:
                raise ValueError(f"text.length is {length}: this language model has {self.positions} positions")
            x = x + self.param("positions", init, (self.positions, self.width))[:length]
        return TextCondition(x, masked_mean(x, mask), mask)


def make(config) -> TextEncoder:
    """`Words` of those of its fields that `config.text` has, and, without `init_from`, a tokenizer of `vocab_size`."""
    return trained(Words, config)
