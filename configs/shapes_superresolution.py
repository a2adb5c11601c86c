"""Shapes of 32 px enlarged to 64 px by diffusion: the last stage of a cascade (DALL-E 2).

python main.py train --config=configs/shapes_superresolution.py --workdir=runs/shapes_superresolution
python main.py upscale --workdir=runs/shapes_superresolution --image=X.png --out=upscaled

`emoji` is of emoji. First: main.py prepare --data=emoji --resolution=64.
"""  # noqa: E501

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "superresolution_diffusion"
    config.data = {**recipes.SHAPES_DATA, "resolution": 64}
    config.text.update(encoder="none", length=2)
    config.caption_dropout = 0.0
    config.ema_decay = 0.995
    config.model = {"width": 32, "depth": 6, "dtype": "float32"}
    config.superresolution = {"scale": 2}
    config.upscale = {"steps": 10}
    config.optim.update(learning_rate=1e-3, schedule="cosine", weight_decay=0.0, clip=1.0)
    config.train.update(steps=2000, batch_size=8, eval_every=1000, save_every=1000, grid=8)
    return config


def emoji(config):
    """Emoji in three styles."""
    config.data = {**recipes.EMOJI_DATA, "resolution": 64}


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.model.update(width=8, depth=1)
    config.data.resolution = 32
    config.upscale.steps = 2


VARIANTS = (emoji, smoke)
