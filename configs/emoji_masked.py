r"""Real emoji drawn by a masked transformer, many codes at once.

python main.py prepare --data=emoji
python main.py train --config=configs/emoji_vqgan.py --workdir=runs/emoji_vqgan
python main.py train --config=configs/emoji_masked.py \
    --config.first_stage.run=runs/emoji_vqgan --workdir=runs/emoji_masked
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "masked"
    config.data = recipes.EMOJI_DATA
    config.text.update(recipes.EMOJI_TEXT)
    config.image_tokenizer = recipes.EMOJI_CODES
    config.model = {
        "width": 128,
        "depth": 4,
        "heads": 4,
        "reach": 1,
        "dropout": 0.1,
        "dtype": "float32",
    }
    config.mask_schedule = "cosine"
    config.optim.update(recipes.EMOJI_OPTIM)
    config.sample = {"steps": 16, "choice_temperature": 4.0, "temperature": 0.8}
    config.train.update(steps=4500, batch_size=32, grid=32)
    return config


def smoke(config):
    """A tiny one that only shows that everything runs; on patches without first_stage.run."""
    recipes.make_tiny(config)
    recipes.make_tiny_transformer(config)
    config.image_tokenizer.update(codes=32, fit_pictures=16)


VARIANTS = (smoke,)
