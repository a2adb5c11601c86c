"""The twin of models/prefix_decoder.py and of its training on codes of patches."""

import torch
import torch.nn.functional as F

from t2i_jax.benchmark.twins.codes import CodesTransformer, OfCodes, window_table


class Autoregressive(OfCodes):
    """A decoder over [caption | codes]: bidirectional over the caption, then causal."""

    def __init__(self, config, frozen, params):
        super().__init__(config, frozen, params)
        grid = (config["data"]["resolution"] // self.patch,) * 2
        window = window_table(*grid, 2)[:, :12]
        text_width = config["text"]["width"]
        self.net = CodesTransformer(config["model"], self.codebook, 1, window, grid, text_width)

    def forward(self, batch):
        """Return the logits of the pictures' codes."""
        return self.logits(*self.captions(batch), self.codes(batch))

    def logits(self, tokens, mask, codes):
        """Return teacher-forced logits [B, N, codes]."""
        count, limit = codes.shape[1], tokens.shape[1]
        allowed = torch.ones(limit + count, limit + count, dtype=torch.bool).tril()
        allowed[:, :limit] = True
        present = F.pad(mask, (0, count), value=True)[:, None, None]
        seen = F.pad(codes, (0, 1), value=len(self.codebook))
        return self.net.logits(seen, self.text(tokens, mask)[0], allowed & present)

    def loss(self, batch):
        """Return the nats per code."""
        codes = self.codes(batch)
        logits = self.logits(*self.captions(batch, dropped=True), codes)
        return F.cross_entropy(logits.flatten(0, 1), codes.flatten())


def make(config, frozen, params):
    """Return the twin of a config of family "autoregressive"."""
    return Autoregressive(config, frozen, params)
