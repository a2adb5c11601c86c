"""Captioned shapes drawn by a masked transformer, many tokens at once.

python main.py train --config=configs/shapes_masked.py --workdir=runs/shapes_masked
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "masked"
    config.data = recipes.SHAPES_DATA
    config.text.update(recipes.SHAPES_TEXT)
    config.image_tokenizer = recipes.SHAPES_PAIRS
    config.model = {
        "width": 128,
        "depth": 4,
        "heads": 4,
        "reach": 2,
        "local": True,
        "dropout": 0.0,
        "dtype": "float32",
    }
    config.mask_schedule = "cosine"
    config.optim.update(recipes.SHAPES_OPTIM)
    config.corruption = 0.1
    config.ema_decay = 0.99
    config.sample = {
        "order": "surprise",
        "temperature": 0.7,
        "top_p": 0.8,
        "guidance": 1.25,
        "doubt": 0.05,
    }
    config.train.update(steps=5000, batch_size=32, eval_every=2500, save_every=2500)
    return config


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    recipes.make_tiny_transformer(config)
    config.image_tokenizer.update(codes=64, pairs=0, fit_pictures=32)


VARIANTS = (smoke,)
