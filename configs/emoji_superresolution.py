"""Super-resolution on emoji: pictures of 32 px become pictures of 64 px (EDSR).

python main.py prepare --data=emoji --resolution=64
python main.py train --config=configs/emoji_superresolution.py --workdir=runs/emoji_superresolution
python main.py upscale --workdir=runs/emoji_superresolution --image=X.png --out=upscaled

`x4` enlarges 16 px to 64 px. `gan` adds a discriminator.
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "superresolution"
    config.data = {**recipes.EMOJI_DATA, "resolution": 64}
    config.text.update(encoder="none", length=2)
    config.caption_dropout = 0.0
    config.ema_decay = 0.99
    config.model = {"network": "edsr", "width": 32, "depth": 6}
    config.superresolution = {"scale": 2}
    config.optim.update(learning_rate=1e-3, schedule="cosine", weight_decay=0.0, clip=1.0)
    config.train.update(steps=1500, batch_size=8, eval_every=500, save_every=500, grid=8)
    return config


def x4(config):
    """16 px to 64 px."""
    config.superresolution.scale = 4


def gan(config):
    """With a discriminator and its relativistic loss."""
    config.superresolution.adversarial = 0.005
    config.discriminator = {"width": 32, "levels": 2}
    config.optim.players = {"discriminator": {"learning_rate": 2e-4, "schedule": "constant"}}


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.model.update(width=8, depth=1)
    config.data.resolution = 32


VARIANTS = (x4, gan, smoke)
