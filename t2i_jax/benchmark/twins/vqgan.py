"""The twin of models/vqgan.py and of its training with a KL bottleneck, without a discriminator."""

import torch
import torch.nn.functional as F
from torch import nn

from t2i_jax.benchmark.twins.layers import Attention, Conv, GroupNorm, to_unit


class ResBlock(nn.Module):
    """A residual branch of two convolutions."""

    def __init__(self, inputs, channels):
        super().__init__()
        self.norm_in, self.norm_out = GroupNorm(inputs), GroupNorm(channels)
        self.conv_in, self.conv_out = Conv(inputs, channels), Conv(channels, channels)
        if inputs != channels:
            self.skip = nn.Linear(inputs, channels)

    def forward(self, x):
        """Return [B, H, W, channels]."""
        y = self.conv_in(F.silu(self.norm_in(x)))
        y = self.conv_out(F.silu(self.norm_out(y)))
        return y + (self.skip(x) if hasattr(self, "skip") else x)


class AttentionBlock(nn.Module):
    """A residual branch of self-attention over the cells, with one head."""

    def __init__(self, channels):
        super().__init__()
        self.norm, self.attention = GroupNorm(channels), Attention(channels, 1, qk_norm=False)

    def forward(self, x):
        """Return an array of the shape of x."""
        return x + self.attention(self.norm(x).flatten(1, 2)).view_as(x)


class Part(nn.Module):
    """What encoder and decoder share."""

    def __init__(self, model):
        super().__init__()
        assert model["resample"] == "conv" and model["patch"] == 1 and not model["attention"]
        assert model["middle_attention"] and not model["project"]
        self.blocks, self.wide = model["blocks"], [model["width"] * m for m in model["multipliers"]]
        deepest = self.wide[-1]
        self.middle_0, self.middle_1 = ResBlock(deepest, deepest), ResBlock(deepest, deepest)
        self.middle_0_attention = AttentionBlock(deepest)

    def middle(self, x):
        """Apply the blocks of the middle."""
        return self.middle_1(self.middle_0_attention(self.middle_0(x)))


class Encoder(Part):
    """The encoder, from pictures to cells."""

    def __init__(self, model, features):
        super().__init__(model)
        channels = self.wide[0]
        self.conv_in = Conv(3, channels)
        for level, wide in enumerate(self.wide):
            for i in range(self.blocks):
                self.add_module(f"down_{level}_{i}", ResBlock(channels, wide))
                channels = wide
            if level < len(self.wide) - 1:
                self.add_module(f"down_{level}", Conv(channels, channels, stride=2, padding=0))
        self.norm_out, self.conv_out = GroupNorm(channels), Conv(channels, features)

    def forward(self, x):
        """Return [B, h, w, features]."""
        x = self.conv_in(x)
        for level in range(len(self.wide)):
            for i in range(self.blocks):
                x = getattr(self, f"down_{level}_{i}")(x)
            if level < len(self.wide) - 1:
                x = getattr(self, f"down_{level}")(F.pad(x, (0, 0, 0, 1, 0, 1)))
        return self.conv_out(F.silu(self.norm_out(self.middle(x))))


class Decoder(Part):
    """The decoder, from cells to pictures."""

    def __init__(self, model, features):
        super().__init__(model)
        channels = self.wide[-1]
        self.conv_in = Conv(features, channels)
        for level, wide in reversed([*enumerate(self.wide)]):
            for i in range(self.blocks + 1):
                self.add_module(f"up_{level}_{i}", ResBlock(channels, wide))
                channels = wide
            if level > 0:
                self.add_module(f"up_{level}", Conv(channels, channels))
        self.norm_out, self.conv_out = GroupNorm(channels), Conv(channels, 3)

    def forward(self, z):
        """Return pictures [B, H, W, 3]."""
        x = self.middle(self.conv_in(z))
        for level in reversed(range(len(self.wide))):
            for i in range(self.blocks + 1):
                x = getattr(self, f"up_{level}_{i}")(x)
            if level > 0:
                x = F.interpolate(x.permute(0, 3, 1, 2), scale_factor=2).permute(0, 2, 3, 1)
                x = getattr(self, f"up_{level}")(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    """An encoder to normal distributions, and a decoder of draws from them."""

    def __init__(self, config):
        super().__init__()
        dim = config["quantizer"]["dim"]
        assert config["quantizer"]["kind"] == "kl"
        self.weights = config["vqgan"]
        self.encoder = Encoder(config["model"], 2 * dim)
        self.decoder = Decoder(config["model"], dim)

    def forward(self, batch, x):
        """Return the reconstructions of pictures x, from the means."""
        return self.decoder(self.encoder(x).chunk(2, -1)[0])

    def loss(self, batch):
        """Return the weighted error of reconstructions from draws, and of the distributions."""
        x = to_unit(batch["image"])
        mean, log_var = self.encoder(x).chunk(2, -1)
        log_var = log_var.clamp(-30.0, 20.0)
        y = self.decoder(mean + (0.5 * log_var).exp() * torch.randn_like(mean))
        nats = 0.5 * (log_var.exp() + mean.square() - 1 - log_var).mean()
        error = self.weights["l1"] * (y - x).abs().mean()
        error = error + self.weights["l2"] * (y - x).square().mean()
        return error + self.weights["quantizer"] * nats


def make(config, frozen, params):
    """Return the twin of a config of family "vqgan" with quantizer "kl"."""
    return Autoencoder(config)
