"""Real emoji in three art styles, drawn from their names.

python main.py prepare --data=emoji
python main.py train --config=configs/emoji.py --workdir=runs/emoji
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "autoregressive"
    config.data = recipes.EMOJI_DATA
    config.text.update(recipes.EMOJI_TEXT)
    config.image_tokenizer = recipes.EMOJI_CODES
    config.model = {"width": 192, "depth": 6, "heads": 3, "dropout": 0.1, "dtype": "float32"}
    config.optim.update(recipes.EMOJI_OPTIM)
    config.sample = {
        "temperature": 0.8,
        "top_k": 0,
        "top_p": 0.95,
        "guidance": 1.0,
        "candidates": 1,
    }
    config.train.update(steps=2800, batch_size=32, grid=32)
    return config


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    recipes.make_tiny_transformer(config)
    config.image_tokenizer.update(codes=32, fit_pictures=16)


VARIANTS = (smoke,)
