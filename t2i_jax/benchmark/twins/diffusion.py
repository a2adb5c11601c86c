"""The twin of families/diffusion.py: rectified flow in pixels, with the velocity as the target."""

import torch
from torch import nn

from t2i_jax.benchmark.twins.layers import Words, drop_captions, to_unit


class Diffusion(nn.Module):
    """A text encoder and a network (x, t, sequence, pooled, mask) -> prediction."""

    def __init__(self, net, config, frozen, params):
        super().__init__()
        chosen = config["diffusion"]
        assert chosen["schedule"] == "rectified" and chosen["parameterization"] == "velocity"
        assert chosen["time"] == "logit_normal" and (chosen["mean"], chosen["std"]) == (0.0, 1.0)
        assert chosen["weighting"] == "uniform" and chosen["shift"] == 1.0
        encoder = config["text"]["encoder"]
        self.encoder, self.drop = encoder, config["caption_dropout"]
        self.null = frozen["null_text"][encoder]
        self.text = Words(len(params["model/text/embed/embedding"]), config["text"])
        self.net = net

    def forward(self, batch, x, t):
        """Return the prediction for noisy pictures x at times t, with the captions of the batch."""
        text = batch["text"][self.encoder]
        sequence, pooled = self.text(text["tokens"], text["mask"])
        return self.net(x, t, sequence, pooled, text["mask"])

    def loss(self, batch):
        """Return the mean squared error of the velocity at random times."""
        text = batch["text"][self.encoder]
        tokens, mask = drop_captions(text["tokens"], text["mask"], self.null, self.drop)
        x0 = to_unit(batch["image"])
        noise, t = torch.randn_like(x0), torch.randn(len(x0)).sigmoid()
        x_t = torch.lerp(x0, noise, t[:, None, None, None])
        prediction = self.net(x_t, t, *self.text(tokens, mask), mask)
        return (prediction - (noise - x0)).square().mean()
