"""The recurrent text encoders against torch.nn.GRU and torch.nn.LSTM, with the same weights.

Over packed sequences.
"""

import jax
import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from t2i_jax import config as configs
from t2i_jax.text.encoder import make_encoder

WIDTH, LENGTHS = 32, [9, 1, 12, 4]


def _arrays(tensors):
    return [tensor.detach().numpy() for tensor in tensors]


def _gru(net) -> dict:
    """Parameters of `nn.GRUCell`, with one bias where torch adds two, except in the reset gate."""
    # The gates r, z, n.
    inner, hidden, bias, hidden_bias = (np.split(x, 3) for x in _arrays(net.all_weights[0]))
    cell = {
        "i" + gate: {"kernel": inner[k].T, "bias": bias[k] + hidden_bias[k]}
        for k, gate in enumerate("rz")
    }
    cell |= {"h" + gate: {"kernel": hidden[k].T} for k, gate in enumerate("rz")}
    return cell | {
        "in": {"kernel": inner[2].T, "bias": bias[2]},
        "hn": {"kernel": hidden[2].T, "bias": hidden_bias[2]},
    }


def _lstm(weights) -> dict:
    """Parameters of `nn.OptimizedLSTMCell`, which has one bias where torch adds two."""
    inner, hidden, bias, hidden_bias = (np.split(x, 4) for x in _arrays(weights))  # i, f, g, o
    cell = {"i" + gate: {"kernel": inner[k].T} for k, gate in enumerate("ifgo")}
    return cell | {
        "h" + gate: {"kernel": hidden[k].T, "bias": bias[k] + hidden_bias[k]}
        for k, gate in enumerate("ifgo")
    }


@pytest.mark.parametrize("cell", ["gru", "bilstm"])
def test_states_are_those_of_torch(cell):
    torch.manual_seed(0)
    if cell == "gru":
        net = torch.nn.GRU(WIDTH, WIDTH, batch_first=True)
        params = {"gru": _gru(net)}
    else:
        net = torch.nn.LSTM(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True)
        params = dict(zip(("forward", "backward"), map(_lstm, net.all_weights), strict=True))
    rng = np.random.default_rng(0)
    tokens, table = rng.integers(0, 300, (4, 12)), rng.normal(0, 1, (300, WIDTH)).astype(np.float32)
    packed = pack_padded_sequence(
        torch.from_numpy(table[tokens]), LENGTHS, batch_first=True, enforce_sorted=False
    )
    with torch.no_grad():
        states, last = net(packed)
    last = last if cell == "gru" else last[0]

    config = configs.base().text
    config.update({"encoder": "recurrent", "cell": cell, "vocab_size": 300, "width": WIDTH})
    text = {"tokens": tokens.astype(np.int32), "mask": np.arange(12) < np.array(LENGTHS)[:, None]}
    ours = jax.jit(make_encoder(config).apply)({"embed": {"embedding": table}, **params}, {}, text)
    np.testing.assert_allclose(
        ours.sequence, pad_packed_sequence(states, batch_first=True)[0].numpy(), atol=1e-5
    )
    np.testing.assert_allclose(ours.pooled, np.concatenate(last.numpy(), axis=-1), atol=1e-5)
