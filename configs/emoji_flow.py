r"""Emoji of 64 px from words that training has not: rectified flow in principal components.

python main.py prepare --data=emoji --resolution=64
python main.py prepare --weights=minilm
python main.py train --config=configs/emoji_eigenpictures.py --workdir=runs/emoji_eigenpictures
python main.py train --config=configs/emoji_flow.py \
    --config.first_stage.run=runs/emoji_eigenpictures --workdir=runs/emoji_flow

What is drawn is a mixture of training pictures, mostly of one: docs/recipes.md says how good.
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "diffusion"
    config.data = {**recipes.EMOJI_DATA, "resolution": 64}
    config.text.update(recipes.FIXED_WORDS_TEXT)
    config.first_stage.cache = True
    config.diffusion = recipes.EIGENPICTURES_FLOW
    config.model = {
        "network": "latent_mlp",
        "width": 384,
        "depth": 3,
        "prototypes": 4031,
        "dropout": 0.05,
        "dtype": "float32",
    }
    config.optim.update(learning_rate=0.001)
    config.caption_dropout = 0.1
    config.word_dropout = 0.2
    config.ema_decay = 0.99
    config.sample = recipes.EIGENPICTURES_SAMPLE
    config.train.update(steps=600, batch_size=256, eval_every=300, save_every=300, grid=32)
    return config


def smoke(config):
    """A tiny one that only shows that everything runs; also without first_stage.run."""
    recipes.make_tiny(config)
    config.data.resolution = 32
    config.text.update(encoder="transformer", vocab_size=512, depth=0)
    config.first_stage.cache = False
    config.eigenpictures = {"components": 16, "fit_pictures": 16}
    config.model.update(width=32, depth=2, prototypes=0)
    config.sample.steps = 3


VARIANTS = (smoke,)
