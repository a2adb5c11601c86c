"""The twin of models/masked_transformer.py and of its training on codes of patches."""

import math

import torch
import torch.nn.functional as F

from t2i_jax.benchmark.twins.codes import CodesTransformer, OfCodes, window_table


class Masked(OfCodes):
    """A bidirectional transformer over [caption | codes] that fills in masked codes."""

    def __init__(self, config, frozen, params):
        super().__init__(config, frozen, params)
        grid = (config["data"]["resolution"] // self.patch,) * 2
        window = window_table(*grid, config["model"]["reach"])
        text_width = config["text"]["width"]
        assert config["mask_schedule"] == "cosine"
        self.net = CodesTransformer(config["model"], self.codebook, 2, window, grid, text_width)

    def forward(self, batch, masked):
        """Return the logits of the pictures' codes, of which `masked` are hidden."""
        return self.logits(*self.captions(batch), self.codes(batch), masked)

    def logits(self, tokens, mask, codes, masked):
        """Return logits [B, N, codes]."""
        outside, hidden = len(self.codebook), len(self.codebook) + 1
        seen = F.pad(codes.masked_fill(masked, hidden), (0, 1), value=outside)
        present = F.pad(mask, (0, codes.shape[1]), value=True)[:, None, None]
        return self.net.logits(seen, self.text(tokens, mask)[0], present)

    def loss(self, batch):
        """Return the nats per masked code, of as many random places as the schedule says."""
        codes = self.codes(batch)
        count = (torch.cos(math.pi / 2 * torch.rand(len(codes), 1)) * codes.shape[1]).ceil()
        rank = torch.rand(codes.shape).argsort(-1).argsort(-1)
        masked = rank < count.clamp(min=1)
        logits = self.logits(*self.captions(batch, dropped=True), codes, masked)
        nats = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
        return (nats * masked.flatten()).sum() / masked.sum()


def make(config, frozen, params):
    """Return the twin of a config of family "masked"."""
    return Masked(config, frozen, params)
