"""Fashion-MNIST translated to its negative and back without pairs: a toy whose answer is known.

python main.py prepare --data=fashion_mnist
python main.py train --config=configs/fashion_cyclegan.py --workdir=runs/fashion_cyclegan
python main.py translate --workdir=runs/fashion_cyclegan --image=X.png
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "cyclegan"
    config.data = {
        "name": "unpaired",
        "resolution": 32,
        "first": {"name": "fashion_mnist"},
        "second": {"name": "fashion_mnist", "negative": True},
        "match": "position",
    }
    config.text.update(encoder="none", length=2)
    config.caption_dropout = 0.0
    config.ema_decay = 0.99
    config.model = {"width": 12, "levels": 0, "depth": 1, "norm": "none"}
    config.discriminator = {"width": 16, "levels": 1}
    config.cyclegan = {"cycle": 2.0, "identity": 0.0, "pool": 50}
    config.optim.update(recipes.FASHION_GAME_OPTIM, learning_rate=1e-3, schedule="linear")
    config.train.update(
        steps=1200, batch_size=4, eval_every=600, save_every=600, validation_examples=128
    )
    return config


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.model.update(width=4, depth=1)
    config.discriminator.width = 4
    config.cyclegan.pool = 6


VARIANTS = (smoke,)
