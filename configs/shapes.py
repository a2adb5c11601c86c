"""Captioned shapes drawn by an autoregressive transformer over patches of two colours.

It also captions. Of eight pictures that it draws, it shows the one that is best by its own
judgement: how likely the picture is given the caption, and the caption given the picture.

python main.py train --config=configs/shapes.py --workdir=runs/shapes
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "autoregressive"
    config.data = recipes.SHAPES_DATA
    config.text.update(recipes.SHAPES_TEXT)
    config.image_tokenizer = recipes.SHAPES_PAIRS
    config.model = {"width": 128, "depth": 4, "heads": 4, "dropout": 0.0, "dtype": "float32"}
    config.optim.update(recipes.SHAPES_OPTIM)
    config.captioning = 0.25
    config.ema_decay = 0.99
    config.sample = {
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 0.95,
        "guidance": 1.25,
        "candidates": 8,
    }
    config.train.update(steps=2000, batch_size=32, eval_every=1000, save_every=1000)
    return config


def minilm(config):
    """Captions encoded by MiniLM (first: main.py prepare --weights=minilm); it does not caption."""
    config.captioning = 0.0
    config.text.update(encoder="minilm", length=18)  # as long as the longest paraphrase


def smoke(config):
    """A tiny one that only shows that everything runs; it does not caption."""
    recipes.make_tiny(config)
    recipes.make_tiny_transformer(config)
    config.captioning = 0.0
    config.image_tokenizer.update(codes=64, pairs=0, fit_pictures=32)
    config.sample.candidates = 1


VARIANTS = (minilm, smoke)
