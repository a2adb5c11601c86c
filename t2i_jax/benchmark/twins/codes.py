"""What the twins of transformers over codes share (models/code_vectors.py, patch_codebook.py)."""

import torch
import torch.nn.functional as F
from torch import nn

from t2i_jax.benchmark.twins.layers import (
    Trunk,
    Words,
    drop_captions,
    sine_positions,
    sine_positions_2d,
    space_to_depth,
    to_unit,
)


class CodeVectors(nn.Module):
    """Input and output vectors of codes, from a codebook."""

    def __init__(self, codebook, extra, width):
        super().__init__()
        entries = (codebook - codebook.mean(0)) / (codebook.std(correction=0) + 1e-6)
        self.register_buffer("entries", entries)
        self.look = nn.Linear(codebook.shape[1], 2 * width)
        self.look_in, self.look_out = (nn.Linear(2 * width, width, bias=False) for _ in range(2))
        self.embed = nn.Parameter(torch.zeros(len(codebook) + extra, width))
        self.head = nn.Parameter(torch.zeros(len(codebook), width))

    def forward(self):
        """Return (input vectors [codes + extra, width], output vectors [codes, width])."""
        hidden, count = F.gelu(self.look(self.entries), approximate="tanh"), len(self.entries)
        seen = torch.cat([self.embed[:count] + self.look_in(hidden), self.embed[count:]])
        return seen, self.head + self.look_out(hidden) * self.head.shape[1] ** -0.5


class CodesTransformer(nn.Module):
    """A transformer over [caption | codes]; the input of a code is a window of codes around it."""

    def __init__(self, model, codebook, extra, window, grid, text_width):
        super().__init__()
        width = model["width"]
        block = model["block"]
        assert block["norm"] == "rms" and block["mlp"] == "gelu_tanh" and block["qk_norm"]
        assert not any(block[name] for name in ("bias", "rope", "kv_heads", "head_dim", "hidden"))
        assert not model.get("causal_text") and not model["dropout"]
        self.vectors = CodeVectors(codebook, extra, width)
        self.text_in = nn.Linear(text_width, width, bias=False)
        self.near = nn.Linear(window.shape[1] * width, width, bias=False)
        self.trunk = Trunk(width, model["depth"], model["heads"])
        self.register_buffer("window", window)
        self.register_buffer("positions", sine_positions_2d(*grid, width))

    def logits(self, seen, sequence, mask):
        """Return logits [B, N, codes].

        seen: [B, N + 1], the codes as they are seen, and that of the outside of the picture.
        mask: like [B, 1, S, S] in shape: which places may attend to which.
        """
        embed, head = self.vectors()
        caption = self.text_in(sequence)
        caption = caption + sine_positions(caption.shape[1], caption.shape[2])
        image = self.near(F.embedding(seen[:, self.window], embed).flatten(2)) + self.positions
        x = self.trunk(torch.cat([caption, image], 1), mask)
        return x[:, caption.shape[1] :] @ head.T


class OfCodes(nn.Module):
    """A text encoder and a transformer over codes of patches."""

    def __init__(self, config, frozen, params):
        super().__init__()
        self.encoder, self.drop = config["text"]["encoder"], config["caption_dropout"]
        self.null = frozen["null_text"][self.encoder]
        self.text = Words(len(params["model/text/embed/embedding"]), config["text"])
        self.patch = config["image_tokenizer"]["patch"]
        self.register_buffer("codebook", frozen["first_stage"]["codebook"])

    def captions(self, batch, dropped=False):
        """Return (tokens, mask) of a batch; if `dropped`, some captions are empty."""
        text = batch["text"][self.encoder]
        if not dropped:
            return text["tokens"], text["mask"]
        return drop_captions(text["tokens"], text["mask"], self.null, self.drop)

    def codes(self, batch):
        """Return the nearest code of each patch, [B, N]."""
        patches = space_to_depth(to_unit(batch["image"]), self.patch).flatten(1, 2)
        distance = self.codebook.square().sum(1) - 2 * patches @ self.codebook.T
        return distance.argmin(-1)


def window_table(rows, columns, reach):
    """Return the places in the window around each place, [N, (2 reach + 1)^2]; N: outside."""
    near = range(-reach, reach + 1)
    return torch.tensor(
        [
            [
                (y + j) * columns + x + i
                if 0 <= y + j < rows and 0 <= x + i < columns
                else rows * columns
                for j in near
                for i in near
            ]
            for y in range(rows)
            for x in range(columns)
        ]
    )
