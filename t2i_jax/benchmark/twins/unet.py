"""The twin of models/unet.py. Arrays are [B, H, W, C] everywhere, which is channels-last."""

import torch
import torch.nn.functional as F
from torch import nn

from t2i_jax.benchmark.twins.diffusion import Diffusion
from t2i_jax.benchmark.twins.layers import (
    Attention,
    Conv,
    GroupNorm,
    TimeAndText,
    depth_to_space,
    space_to_depth,
)


class ResBlock(nn.Module):
    """Two convolutions; the condition scales and shifts the norm between them."""

    def __init__(self, inputs, channels, condition):
        super().__init__()
        self.norm_in, self.norm_out = GroupNorm(inputs), GroupNorm(channels)
        self.conv_in, self.conv_out = Conv(inputs, channels), Conv(channels, channels)
        self.modulation = nn.Linear(condition, 2 * channels)
        if inputs != channels:
            self.skip = nn.Linear(inputs, channels)

    def forward(self, x, condition):
        """Return [B, H, W, channels]."""
        scale, shift = self.modulation(condition)[:, None, None].chunk(2, -1)
        y = self.conv_in(F.silu(self.norm_in(x)))
        y = self.conv_out(F.silu(self.norm_out(y) * (1 + scale) + shift))
        return (self.skip(x) if hasattr(self, "skip") else x) + y


class TransformerBlock(nn.Module):
    """Self-attention, attention to the words, and a GELU network."""

    def __init__(self, channels, heads, text_width):
        super().__init__()
        self.attention = Attention(channels, heads)
        self.cross_attention = Attention(channels, heads, text_width)
        self.mlp_in = nn.Linear(channels, 4 * channels)
        self.mlp_out = nn.Linear(4 * channels, channels)

    def forward(self, x, words, mask):
        """Return an array of the shape of x."""
        h, norm = x.flatten(1, 2), lambda h: F.layer_norm(h, h.shape[-1:], eps=1e-6)
        h = h + self.attention(norm(h))
        h = h + self.cross_attention(norm(h), words, mask[:, None, None])
        h = h + self.mlp_out(F.gelu(self.mlp_in(norm(h)), approximate="tanh"))
        return h.view_as(x)


class UNet(TimeAndText):
    """The denoising U-Net."""

    def __init__(self, model, text_width):
        width = model["width"]
        assert model["cross_attention"] and model["patch"] == 1
        super().__init__(width, text_width, 4 * width)
        self.blocks, self.attention, self.heads = (
            model["blocks"],
            model["attention"],
            model["heads"],
        )
        self.text_width, self.wide = text_width, [width * m for m in model["multipliers"]]
        self.levels = len(self.wide)
        self.conv_in, channels, skips = Conv(3, self.wide[0]), self.wide[0], []
        for level, wide in enumerate(self.wide):
            for i in range(self.blocks):
                channels = self.add(f"down_{level}_{i}", channels, wide, level in self.attention)
                skips.append(channels)
            if level < self.levels - 1:
                self.add_module(f"down_{level}", nn.Linear(4 * channels, channels))
        channels = self.add("middle_0", channels, channels, True)
        channels = self.add("middle_1", channels, channels, False)
        for level in reversed(range(self.levels)):
            for i in range(self.blocks):
                inputs, attend = channels + skips.pop(), level in self.attention
                channels = self.add(f"up_{level}_{i}", inputs, self.wide[level], attend)
            if level > 0:
                below = self.wide[level - 1]
                self.add_module(f"up_{level}", nn.Linear(channels, 4 * below))
                channels = below
        self.norm_out, self.conv_out = GroupNorm(channels), Conv(channels, 3)

    def add(self, name, inputs, channels, attend):
        """Add the modules of a block, and return its channels."""
        self.add_module(name, ResBlock(inputs, channels, self.time_out.out_features))
        if attend:
            block = TransformerBlock(channels, self.heads, self.text_width)
            self.add_module(f"{name}_transformer", block)
        return channels

    def forward(self, x, t, sequence, pooled, mask):
        """Return the prediction [B, H, W, 3]."""
        condition = self.condition(t, pooled)

        def block(x, name):
            x = getattr(self, name)(x, condition)
            attend = getattr(self, f"{name}_transformer", None)
            return x if attend is None else attend(x, sequence, mask)

        x, skips = self.conv_in(x), []
        for level in range(self.levels):
            for i in range(self.blocks):
                x = block(x, f"down_{level}_{i}")
                skips.append(x)
            if level < self.levels - 1:
                x = getattr(self, f"down_{level}")(space_to_depth(x, 2))
        x = block(block(x, "middle_0"), "middle_1")
        for level in reversed(range(self.levels)):
            for i in range(self.blocks):
                x = block(torch.cat([x, skips.pop()], -1), f"up_{level}_{i}")
            if level > 0:
                x = depth_to_space(getattr(self, f"up_{level}")(x), 2)
        return self.conv_out(F.silu(self.norm_out(x)))


def make(config, frozen, params):
    """Return the twin of a config of family "diffusion" with network "unet"."""
    net = UNet(config["model"], config["text"]["width"])
    return Diffusion(net, config, frozen, params)
