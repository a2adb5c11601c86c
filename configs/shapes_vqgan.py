"""A first stage for captioned shapes: 8 x 8 codes of a picture, out of 2,048.

python main.py train --config=configs/shapes_vqgan.py --workdir=runs/shapes_vqgan
"""

from t2i_jax.config import base, recipes


def get_config():
    """Each code is of the pixels of its own cell alone."""
    config = base()
    config.family = "vqgan"
    config.data = recipes.SHAPES_DATA
    config.text.update(encoder="none", length=2)
    config.caption_dropout = 0.0
    config.ema_decay = 0.99
    config.model = {**recipes.PATCH_AUTOENCODER, "width": 64}
    config.quantizer = recipes.PATCH_QUANTIZER
    config.vqgan = {"l1": 1.0, "l2": 10.0}
    config.discriminator = {"width": 32, "levels": 2}
    config.optim.update(recipes.VQGAN_OPTIM)
    config.train.update(steps=5000, batch_size=32, eval_every=1000, save_every=1000)
    return config


def scales(config):
    """The same on four grids, coarse to fine, for family next_scale."""
    config.quantizer = {**recipes.PATCH_QUANTIZER, "scales": (1, 2, 4, 8)}


def convolutional(config, quantizer):
    """A convolutional encoder, whose codes are not of their own cells alone."""
    config.model.encoder = "convolutional"
    config.quantizer = quantizer
    config.vqgan.l2 = 3.0
    config.train.steps = 2000


def fsq(config):
    """A convolutional encoder and finite scalar quantization."""
    convolutional(config, {"kind": "fsq", "levels": (8, 5, 5, 5)})


def ema(config):
    """A convolutional encoder and a codebook of running averages."""
    convolutional(config, {"kind": "ema", "size": 1024, "dim": 8, "normalize": True})


def vq(config):
    """A convolutional encoder and a codebook that is trained."""
    convolutional(config, {"kind": "vq", "size": 1024, "dim": 8, "normalize": True})


def lfq(config):
    """A convolutional encoder and lookup-free quantization."""
    convolutional(config, {"kind": "lfq", "bits": 10})


def kl(config):
    """A convolutional encoder and latents without codes."""
    convolutional(config, {"kind": "kl", "dim": 4})
    config.vqgan.quantizer = 1e-6


def gan(config):
    """Finite scalar quantization with a discriminator of patches."""
    fsq(config)
    config.vqgan.update(adversarial=0.1, start=1000)
    config.optim.players = {"discriminator": {"name": "adamw", "learning_rate": 5e-4, "b1": 0.5}}


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.model.update(width=8, multipliers=(1, 1), patch=2)
    config.vqgan.start = 0
    if config.quantizer.kind == "fsq":
        config.quantizer.levels = (4, 4)
    if config.quantizer.kind in ("ema", "vq"):
        dim = 48 if config.model.encoder == "patches" else 4
        config.quantizer.update(size=16, dim=dim)


VARIANTS = (scales, fsq, ema, vq, lfq, kl, gan, smoke)
