"""What an emoji is, in words, from features of EfficientNet-Lite0.

python main.py prepare --data=emoji
python main.py prepare --weights=efficientnet_lite0
python main.py train --config=configs/emoji_captioner.py --workdir=runs/emoji_captioner
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "captioner"
    config.data = {**recipes.EMOJI_DATA, "resolution": 64}
    config.text.update(encoder="transformer", length=24, vocab_size=2048)
    config.captioner = {"source": "features", "map": 4, "smoothing": 0.1}
    config.first_stage.cache = True  # of the features
    config.model = {"width": 192, "depth": 4, "heads": 3, "dropout": 0.2, "dtype": "float32"}
    config.optim.update(recipes.EMOJI_OPTIM)
    config.caption = {"beams": 4, "temperature": 0.0, "top_p": 1.0, "length_penalty": 0.6}
    config.train.update(steps=1500, batch_size=32, grid=32)
    return config


def codes(config):
    """Conditioned on codes of patches instead of features."""
    config.captioner.source = "codes"
    config.image_tokenizer = {**recipes.EMOJI_CODES, "patch": 8}


def smoke(config):
    """A tiny one on codes that only shows that everything runs."""
    codes(config)
    recipes.make_tiny(config)
    recipes.make_tiny_transformer(config)
    config.image_tokenizer.update(codes=32, fit_pictures=16)


VARIANTS = (codes, smoke)
