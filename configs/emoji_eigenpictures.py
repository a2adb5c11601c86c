"""A first stage for emoji: principal components at 32 px, and a network that gives 64 px back.

python main.py prepare --data=emoji --resolution=64
python main.py train --config=configs/emoji_eigenpictures.py --workdir=runs/emoji_eigenpictures

configs/emoji_flow.py draws the components.
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "eigenpictures"
    config.data = {**recipes.EMOJI_DATA, "resolution": 64}
    config.text.update(encoder="none", length=2)
    config.caption_dropout = 0.0
    config.ema_decay = 0.99
    config.eigenpictures = {"components": 768, "fit_pictures": 4031, "scale": 2, "noise": 0.1}
    config.model = {"width": 32, "depth": 4}
    config.optim.update(learning_rate=2e-3, schedule="cosine", weight_decay=0.0, clip=1.0)
    config.train.update(steps=450, batch_size=16, eval_every=450, save_every=450, grid=32)
    return config


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.model.update(width=8, depth=1)
    config.eigenpictures.update(components=16, fit_pictures=32)
    config.data.resolution = 32


VARIANTS = (smoke,)
