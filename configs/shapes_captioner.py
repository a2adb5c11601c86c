"""What is in a picture of shapes, in words: a transformer continues codes with a caption.

python main.py train --config=configs/shapes_captioner.py --workdir=runs/shapes_captioner
python main.py caption --workdir=runs/shapes_captioner --image=X.png
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "captioner"
    config.data = recipes.SHAPES_DATA
    config.text.update(encoder="transformer", length=12, vocab_size=512)
    config.image_tokenizer = recipes.SHAPES_CODES
    config.captioner = {"source": "codes", "map": 4, "smoothing": 0.0}
    config.model = {"width": 128, "depth": 4, "heads": 4, "dropout": 0.0, "dtype": "float32"}
    config.optim.update(recipes.SHAPES_OPTIM)
    config.ema_decay = 0.99
    config.caption = {"beams": 1, "temperature": 0.0, "top_p": 1.0, "length_penalty": 0.6}
    config.train.update(steps=1200, batch_size=32)
    return config


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    recipes.make_tiny_transformer(config)
    config.image_tokenizer.update(codes=64, fit_pictures=32)


VARIANTS = (smoke,)
