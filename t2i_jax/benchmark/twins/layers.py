"""Layers of the twins, and our weights as theirs.

A module's parameters have the paths of ours: `net.block_0.mlp_in.weight` is our
`net/block_0/mlp_in/kernel`.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Multi-head attention of x over `context`, or over x itself (models/attention.py)."""

    def __init__(self, width, heads, context_width=0, qk_norm=True, bias=True):
        super().__init__()
        self.heads, context_width = heads, context_width or width
        self.query = nn.Linear(width, width, bias)
        self.key, self.value = (nn.Linear(context_width, width, bias) for _ in range(2))
        self.out = nn.Linear(width, width, bias)
        if qk_norm:
            self.query_norm, self.key_norm = (nn.RMSNorm(width // heads, 1e-6) for _ in range(2))

    def forward(self, x, context=None, mask=None):
        """Return [B, Q, width]. mask: True where a key may be used; like [B, 1, Q, K] in shape."""
        context = x if context is None else context

        def split(y):
            return y.unflatten(-1, (self.heads, -1))

        q, k, v = split(self.query(x)), split(self.key(context)), split(self.value(context))
        if hasattr(self, "query_norm"):
            q, k = self.query_norm(q), self.key_norm(k)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))


class Conv(nn.Conv2d):
    """A convolution of [B, H, W, C], whose memory is PyTorch's channels-last."""

    def __init__(self, channels, features, side=3, stride=1, padding=1):
        super().__init__(channels, features, side, stride, padding)
        self.to(memory_format=torch.channels_last)

    def forward(self, x):
        """Return [B, h, w, features]."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class GroupNorm(nn.GroupNorm):
    """GroupNorm of [B, H, W, C] (models/layers.py, group_norm)."""

    def __init__(self, channels):
        super().__init__(math.gcd(32, channels), channels, eps=1e-6)

    def forward(self, x):
        """Return x normalised."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm of [B, H, W, C] (models/layers.py, batch_norm)."""

    def forward(self, x):
        """Return x normalised."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class TimeAndText(nn.Module):
    """The vector that modulates norms (models/layers.py, time_and_text)."""

    def __init__(self, time_channels, text_width, width):
        super().__init__()
        self.time_channels = time_channels
        self.time_in, self.time_out = nn.Linear(time_channels, width), nn.Linear(width, width)
        self.pooled = nn.Linear(text_width, width)

    def condition(self, t, pooled):
        """Return [B, width] of times [B] in [0, 1] and pooled texts [B, text_width]."""
        half = self.time_channels // 2
        steps = torch.arange(half, device=t.device)
        angles = 1000.0 * t[:, None] * torch.exp(-math.log(10000.0) * steps / half)
        time = torch.cat([angles.cos(), angles.sin()], -1)
        return F.silu(self.time_out(F.silu(self.time_in(time))) + self.pooled(pooled))


class Words(nn.Module):
    """A table of words, and a window over neighbouring words (text/transformer.py, depth 0)."""

    def __init__(self, vocabulary, config):
        super().__init__()
        assert config["encoder"] == "transformer" and config["depth"] == 0
        self.reach, width = config["window"], config["width"]
        self.embed = nn.Embedding(vocabulary, width)
        self.window = nn.Linear((2 * self.reach + 1) * width, width, bias=False)

    def forward(self, tokens, mask):
        """Return (sequence [B, L, width], pooled [B, width])."""
        x = self.embed(tokens)
        weight = mask[..., None].to(x.dtype)
        words = F.pad(x * weight, (0, 0, self.reach, self.reach))
        near = [words[:, i : i + x.shape[1]] for i in range(2 * self.reach + 1)]
        x = x + self.window(torch.cat(near, -1))
        return x, (x * weight).sum(1) / weight.sum(1).clamp(min=1)


class Trunk(nn.Module):
    """A stack of blocks with RMSNorm and without biases (models/transformer.py, Transformer)."""

    def __init__(self, width, depth, heads):
        super().__init__()
        self.depth, self.norm = depth, nn.RMSNorm(width, 1e-6)
        for i in range(depth):
            self.add_module(f"block_{i}", TrunkBlock(width, heads))

    def forward(self, x, mask):
        """Return [B, S, width]."""
        for i in range(self.depth):
            x = getattr(self, f"block_{i}")(x, mask)
        return self.norm(x)


class TrunkBlock(nn.Module):
    """Attention and a GELU network, each on a normalised residual branch."""

    def __init__(self, width, heads):
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)
        self.attention = Attention(width, heads, bias=False)
        self.mlp_in = nn.Linear(width, 4 * width, bias=False)
        self.mlp_out = nn.Linear(4 * width, width, bias=False)

    def forward(self, x, mask):
        """Return [B, S, width]."""
        x = x + self.attention(self.attention_norm(x), mask=mask)
        return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh"))


def drop_captions(tokens, mask, null, rate):
    """Return (tokens, mask) with the empty caption in place of each with probability `rate`."""
    drop = torch.rand(len(tokens), 1) < rate
    return torch.where(drop, null["tokens"], tokens), torch.where(drop, null["mask"], mask)


def sine_embedding(positions, width):
    """Return sines and cosines of positions [N] (models/layers.py)."""
    half = (width + 1) // 2
    angles = positions.double()[:, None] * 10000.0 ** (-torch.arange(half).double() / half)
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :width]


def sine_positions(length, width):
    """Return the fixed positions of a sequence, [length, width]."""
    return sine_embedding(torch.arange(length), width).float()


def sine_positions_2d(rows, columns, width):
    """Return the fixed positions of the cells of a grid, [rows * columns, width]."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    halves = (
        sine_embedding(y.flatten(), width // 2),
        sine_embedding(x.flatten(), width - width // 2),
    )
    return torch.cat(halves, 1).float()


def space_to_depth(x, patch):
    """Return [B, H / patch, W / patch, patch^2 C] of [B, H, W, C]."""
    x = x.unflatten(2, (-1, patch)).unflatten(1, (-1, patch))
    return x.transpose(2, 3).flatten(3)


def depth_to_space(x, patch):
    """Return [B, h patch, w patch, D / patch^2] of [B, h, w, D]."""
    x = x.unflatten(3, (patch, patch, -1)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)


def to_unit(image):
    """Return uint8 pictures as float32 in [-1, 1]."""
    return image.float() / 127.5 - 1.0


def load_weights(module, params):
    """Copy our parameters, {path: array}, into a twin.

    Raises ValueError if one of the two has a parameter that the other lacks, or of another shape:
    so their numbers of parameters are equal.
    """
    found = dict(params)
    for path, (name, tensor) in _parameters(module).items():
        if path not in found:
            raise ValueError(f"our network has no parameter {path} for the twin's {name}")
        value = _as_torch(torch.from_numpy(found.pop(path)), module, name)
        if value.shape != tensor.shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, ours {tuple(value.shape)}")
        with torch.no_grad():
            tensor.copy_(value)
    if found:
        raise ValueError(f"the twin lacks {', '.join(found)}")


def _parameters(module):
    norms = dict.fromkeys((nn.RMSNorm, GroupNorm, BatchNorm), "scale")
    kinds = {nn.Embedding: "embedding", **norms}
    paths = {}
    for name, tensor in module.named_parameters():
        owner, _, last = name.rpartition(".")
        kind = type(module.get_submodule(owner))
        if last == "weight":
            last = kinds.get(kind, "kernel")
        paths[f"{owner}.{last}".strip(".").replace(".", "/")] = (name, tensor)
    return paths


def _as_torch(value, module, name):
    """Return our array in PyTorch's order of dimensions."""
    owner, _, last = name.rpartition(".")
    kind = type(module.get_submodule(owner))
    if last == "weight" and kind is nn.Linear:
        return value.T
    if last == "weight" and kind is Conv:
        return value.permute(3, 2, 0, 1)
    if last == "weight" and hasattr(kind, "from_ours"):
        return kind.from_ours(value)
    return value
