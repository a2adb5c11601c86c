"""The twin of models/dit.py."""

import torch
import torch.nn.functional as F
from torch import nn

from t2i_jax.benchmark.twins.diffusion import Diffusion
from t2i_jax.benchmark.twins.layers import (
    Attention,
    TimeAndText,
    depth_to_space,
    sine_positions_2d,
    space_to_depth,
)


def modulated(x, shift, scale):
    """Return the norm of x, without parameters of its own, scaled and shifted."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Block(nn.Module):
    """Self-attention and a GELU network, with modulated norms and gates."""

    def __init__(self, width, heads, mlp_ratio):
        super().__init__()
        hidden = int(mlp_ratio * width)
        self.modulation = nn.Linear(width, 6 * width)
        self.attention = Attention(width, heads)
        self.mlp_in, self.mlp_out = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x, condition, mask):
        """Return [B, N, width]. condition: [B, width]."""
        shift_a, shift_m, scale_a, scale_m, gate_a, gate_m = self.modulation(condition)[
            :, None
        ].chunk(6, -1)
        x = x + gate_a * self.attention(modulated(x, shift_a, scale_a), mask=mask)
        y = F.gelu(self.mlp_in(modulated(x, shift_m, scale_m)), approximate="tanh")
        return x + gate_m * self.mlp_out(y)


class DiT(TimeAndText):
    """The denoising transformer; text tokens join those of the picture."""

    def __init__(self, model, side, text_width):
        width, self_patch = model["width"], model["patch"]
        assert model["text_mode"] == "joint" and model["qk_norm"] and not model["overlap"]
        super().__init__(256, text_width, width)
        self.patch, self.depth = self_patch, model["depth"]
        cell, grid = 3 * self.patch**2, (side // self.patch,) * 2
        self.patch_in, self.text_in = nn.Linear(cell, width), nn.Linear(text_width, width)
        for i in range(self.depth):
            self.add_module(f"block_{i}", Block(width, model["heads"], model["mlp_ratio"]))
        self.modulation, self.patch_out = nn.Linear(width, 2 * width), nn.Linear(width, cell)
        self.register_buffer("positions", sine_positions_2d(*grid, width))

    def forward(self, x, t, sequence, pooled, mask):
        """Return the prediction [B, H, W, 3]."""
        condition = self.condition(t, pooled)
        x = space_to_depth(x, self.patch)
        grid = x.shape[1:3]
        x = self.patch_in(x.flatten(1, 2)) + self.positions
        count = x.shape[1]
        x = torch.cat([x, self.text_in(sequence)], 1)
        mask = F.pad(mask, (count, 0), value=True)[:, None, None]
        for i in range(self.depth):
            x = getattr(self, f"block_{i}")(x, condition, mask)
        shift, scale = self.modulation(condition)[:, None].chunk(2, -1)
        x = self.patch_out(modulated(x[:, :count], shift, scale))
        return depth_to_space(x.unflatten(1, grid), self.patch)


def make(config, frozen, params):
    """Return the twin of a config of family "diffusion" with network "dit"."""
    net = DiT(config["model"], config["data"]["resolution"], config["text"]["width"])
    return Diffusion(net, config, frozen, params)
