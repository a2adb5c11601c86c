"""A recurrent text encoder trained with the model.

It is a GRU (arXiv 1406.1078), or a bidirectional LSTM as in AttnGAN (arXiv 1711.10485).
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from t2i_jax.core.fields import Field
from t2i_jax.core.text import TextCondition, TextEncoder
from t2i_jax.models.layers import Dropout
from t2i_jax.text.encoder import DROPOUT, SHARED, make_trainable

CELLS = ("gru", "bilstm")


class Recurrent(nn.Module):
    """Hidden states of `width` numbers, one for each token; zeros where there is none.

    The mask is True first, then False. `pooled` is the last state: for "gru", that of the last
    token; for "bilstm", the forward state of the last token and the backward state of the first,
    half of the numbers each.

    dropout: share of the numbers of each word's vector that are set to 0 in training.
    """

    vocab_size: int
    width: int = 128
    cell: str = "gru"
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
        keys: Key[Array, "B"] | None = None,
    ) -> TextCondition:
        init, lengths = nn.initializers.normal(0.5), mask.sum(-1)
        x = nn.Embed(self.vocab_size, self.width, embedding_init=init, name="embed")(tokens)
        x = Dropout(self.dropout, name="dropout")(x, keys)
        if self.cell == "gru":
            pooled, x = nn.RNN(nn.GRUCell(self.width, name="gru"))(
                x, seq_lengths=lengths, return_carry=True
            )
        else:
            forward, backward = (
                nn.RNN(nn.OptimizedLSTMCell(self.width // 2, name=name))
                for name in ("forward", "backward")
            )
            ((_, last), (_, first)), x = nn.Bidirectional(forward, backward)(
                x, seq_lengths=lengths, return_carry=True
            )
            pooled = jnp.concatenate([last, first], axis=-1)
        return TextCondition(jnp.where(mask[..., None], x, 0), pooled, mask)


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.text` for recurrent."""
    del config
    return {
        **SHARED,
        "cell": Field("gru", "gru, or bilstm (both directions)", choices=CELLS),
        "dropout": DROPOUT,
    }


def make(config) -> TextEncoder:
    """Build a `Recurrent` encoder from the matching fields of `config.text`.

    Raises ValueError for an unknown `cell`, or an odd `width` with "bilstm".
    """
    if config.cell not in CELLS:
        raise ValueError(f"text.cell = {config.cell!r}: it can be {' or '.join(CELLS)}")
    if config.cell == "bilstm" and config.width % 2:
        raise ValueError(
            f"text.width is {config.width}: under bilstm it is even, half for each direction"
        )
    return make_trainable(Recurrent, config)
