"""A recurrent text encoder trained with the model: a GRU (arXiv 1406.1078), or an LSTM both ways, as AttnGAN's (1711.10485)."""

import flax.linen as nn
import jax.numpy as jnp

from t2i_jax.models.layers import Dropout
from t2i_jax.text.condition import TextCondition, TextEncoder, trained

CELLS = ("gru", "bilstm")


class Recurrent(nn.Module):
    """Tokens int32 [B, L] and mask bool [B, L], True first -> TextCondition with vectors of `width`, zeros where no token is.

    `sequence` is the hidden state after each token. `pooled` is the last: under "gru" that of the last token; under "bilstm"
    half of it is the forward state of the last token, half the backward state of the first.
    dropout: of the numbers of each word's vector, in training.
    """

    vocab_size: int
    width: int = 128
    cell: str = "gru"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, tokens, mask, keys=None) -> TextCondition:
        init, lengths = nn.initializers.normal(0.5), mask.sum(-1)
        x = nn.Embed(self.vocab_size, self.width, embedding_init=init, name="embed")(tokens)
        x = Dropout(self.dropout, name="dropout")(x, keys)
        if self.cell == "gru":
            pooled, x = nn.RNN(nn.GRUCell(self.width, name="gru"))(x, seq_lengths=lengths, return_carry=True)
        else:
            ways = [nn.RNN(nn.OptimizedLSTMCell(self.width // 2, name=name)) for name in ("forward", "backward")]
            ((_, last), (_, first)), x = nn.Bidirectional(*ways)(x, seq_lengths=lengths, return_carry=True)
            pooled = jnp.concatenate([last, first], axis=-1)
        return TextCondition(jnp.where(mask[..., None], x, 0), pooled, mask)


def make(config) -> TextEncoder:
    """A Recurrent of those of its fields that `config.text` has, and a tokenizer of `vocab_size` for the captions.

    Raises ValueError for an unknown `cell`, or an odd `width` under "bilstm".
    """
    if config.cell not in CELLS:
        raise ValueError(f"text.cell = {config.cell!r}: it can be {' or '.join(CELLS)}")
    if config.cell == "bilstm" and config.width % 2:
        raise ValueError(f"text.width is {config.width}: under bilstm it is even, half for each direction")
    return trained(Recurrent, config)
