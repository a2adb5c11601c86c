"""Emoji translated from the 3D renders of Fluent to the flat drawings of Twemoji, without pairs.

python main.py prepare --data=emoji
python main.py train --config=configs/emoji_cyclegan.py --workdir=runs/emoji_cyclegan
python main.py translate --workdir=runs/emoji_cyclegan --image=X.png --out=translated

Training has one half of the emoji as renders and the other half as drawings; validation and test
have both pictures of each emoji.
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "cyclegan"
    config.data = {
        "name": "unpaired",
        "resolution": 32,
        "first": {"name": "emoji", "styles": ("fluent",)},
        "second": {"name": "emoji", "styles": ("twemoji",)},
        "match": "name",
    }
    config.text.update(encoder="none", length=2)
    config.caption_dropout = 0.0
    config.ema_decay = 0.995
    config.model = {"width": 16, "levels": 0, "depth": 2, "norm": "none"}
    config.discriminator = {"width": 16, "levels": 1}
    config.cyclegan = {"cycle": 10.0, "identity": 5.0, "pool": 50}
    config.optim.update(recipes.FASHION_GAME_OPTIM, learning_rate=1e-3, schedule="linear")
    config.train.update(
        steps=1600, batch_size=4, eval_every=400, save_every=400, validation_examples=64
    )
    return config


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.model.update(width=4, depth=1)
    config.discriminator.width = 4
    config.cyclegan.pool = 6


VARIANTS = (smoke,)
