"""The twin of models/dcgan.py and of its training with the non-saturating loss."""

import torch
import torch.nn.functional as F
from torch import nn

from t2i_jax.benchmark.twins.layers import BatchNorm, Conv, Words, drop_captions, to_unit


class Transposed(nn.ConvTranspose2d):
    """A transposed convolution of [B, H, W, C] that doubles the sides."""

    def __init__(self, channels, features):
        super().__init__(channels, features, 4, 2, 1, bias=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, x):
        """Return [B, 2 H, 2 W, features]."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    @staticmethod
    def from_ours(kernel):
        """Return the kernel [4 C, 4 D] of our product over squares of cells as [C, D, 4, 4].

        Its rows are the cell of a square (p, q) and its channel, its columns the pixel (i, j) of
        that pixel's cell and its channel. Tap 3 - 2 p - i leads from that row to that pixel.
        """
        c, d = (size // 4 for size in kernel.shape)
        taps = kernel.reshape(2, 2, c, 2, 2, d).permute(2, 5, 0, 3, 1, 4).reshape(c, d, 4, 4)
        return taps.flip(2, 3)


class Upsample(nn.Module):
    """What our module of that name is with "transposed"."""

    def __init__(self, channels, features):
        super().__init__()
        self.conv = Transposed(channels, features)

    def forward(self, x):
        """Return [B, 2 H, 2 W, features]."""
        return self.conv(x)


class Generator(nn.Module):
    """The generator: the caption modulates its norms."""

    def __init__(self, model, side, text_width):
        super().__init__()
        assert model["upsample"] == "transposed" and not model["attention"]
        self.levels, latent = model["levels"], model["latent"]
        self.side, channels = side // 2**self.levels, model["width"] * 2 ** (self.levels - 1)
        self.text = nn.Linear(text_width, latent)
        self.start = nn.Linear(2 * latent, self.side**2 * channels, bias=False)
        for level in range(self.levels):
            if level:
                self.add_module(f"up_{level}", Upsample(channels, channels // 2))
                channels //= 2
            self.add_module(f"norm_{level}", BatchNorm(channels, affine=False))
            self.add_module(f"norm_{level}_text", nn.Linear(text_width, 2 * channels))
        self.picture = Upsample(channels, model["channels"])

    def forward(self, z, pooled):
        """Return pictures [B, R, R, 3] in [-1, 1]."""
        x = self.start(torch.cat([z, self.text(pooled)], -1))
        x = x.view(len(z), self.side, self.side, -1)
        for level in range(self.levels):
            if level:
                x = getattr(self, f"up_{level}")(x)
            modulation = getattr(self, f"norm_{level}_text")(pooled)[:, None, None]
            scale, shift = modulation.chunk(2, -1)
            x = F.relu(getattr(self, f"norm_{level}")(x) * (1 + scale) + shift)
        return self.picture(x).tanh()


class Discriminator(nn.Module):
    """The discriminator; the caption enters by a projection."""

    def __init__(self, model, side, text_width):
        super().__init__()
        assert model["norm"] == "batch"
        self.levels, channels = model["levels"], model["channels"]
        for level in range(self.levels):
            wide = model["width"] * 2**level
            self.add_module(f"conv_{level}", Conv(channels, wide, 4, 2))
            if level:
                self.add_module(f"norm_{level}", BatchNorm(wide))
            channels = wide
        self.whole = nn.Linear((side // 2**self.levels) ** 2 * channels, channels)
        self.text = nn.Linear(text_width, channels, bias=False)
        self.logit = nn.Linear(channels, 1)

    def forward(self, x, pooled):
        """Return logits [B]."""
        for level in range(self.levels):
            x = getattr(self, f"conv_{level}")(x)
            if level:
                x = getattr(self, f"norm_{level}")(x)
            x = F.leaky_relu(x, 0.2)
        flat = F.leaky_relu(self.whole(x.flatten(1)), 0.2)
        match = (flat * self.text(pooled)).sum(-1) / flat.shape[-1] ** 0.5
        return self.logit(flat)[:, 0] + match


class Player(nn.Module):
    """A network and a text encoder of its own."""

    def __init__(self, net, text):
        super().__init__()
        self.net, self.text = net, text

    def forward(self, x, tokens, mask):
        """Return what the network gives for x and captions."""
        return self.net(x, self.text(tokens, mask)[1])


class Dcgan(nn.Module):
    """Both players."""

    players = ("discriminator", "generator")

    def __init__(self, config, frozen, params):
        super().__init__()
        model, side, width = config["model"], config["data"]["resolution"], config["text"]["width"]
        gan, self.latent = config["gan"], model["latent"]
        assert gan["loss"] == "nonsaturating" and gan["discriminator_steps"] == 1
        added = ("smoothing", "mismatch", "instance_noise", "augment", "gradient_penalty", "r1")
        assert not any(gan[name] for name in (*added, "path_length", "style_mixing"))
        self.encoder, self.drop = config["text"]["encoder"], config["caption_dropout"]
        self.null = frozen["null_text"][self.encoder]

        def player(network, name):
            vocabulary = len(params[f"{name}/text/embed/embedding"])
            return Player(network(model, side, width), Words(vocabulary, config["text"]))

        self.generator = player(Generator, "generator")
        self.discriminator = player(Discriminator, "discriminator")

    def forward(self, batch, z, x):
        """Return the generator's pictures of z, and the discriminator's logits of pictures x."""
        text = batch["text"][self.encoder]
        captions = text["tokens"], text["mask"]
        return torch.cat([self.generator(z, *captions).flatten(), self.discriminator(x, *captions)])

    def captions(self, batch):
        """Return (tokens, mask), some of them empty."""
        text = batch["text"][self.encoder]
        return drop_captions(text["tokens"], text["mask"], self.null, self.drop)

    def draw(self, captions):
        """Return pictures of random numbers."""
        return self.generator(torch.randn(len(captions[0]), self.latent), *captions)

    def discriminator_loss(self, batch):
        """Return the loss of telling real pictures from drawn ones."""
        captions = self.captions(batch)
        with torch.no_grad():
            fake = self.draw(captions)
        real = self.discriminator(to_unit(batch["image"]), *captions)
        return (F.softplus(-real) + F.softplus(self.discriminator(fake, *captions))).mean()

    def generator_loss(self, batch):
        """Return how little the discriminator is fooled."""
        captions = self.captions(batch)
        return F.softplus(-self.discriminator(self.draw(captions), *captions)).mean()


def make(config, frozen, params):
    """Return the twin of a config of family "gan" with network "dcgan"."""
    return Dcgan(config, frozen, params)
