r"""Emoji of 64 px by rectified flow in principal components, from words that training has not.

python main.py prepare --data=emoji --resolution=64
python main.py prepare --weights=minilm
python main.py train --config=configs/emoji_eigenpictures.py --workdir=runs/emoji_eigenpictures
python main.py train --config=configs/emoji_flow.py \
    --config.first_stage.run=runs/emoji_eigenpictures --workdir=runs/emoji_flow

Without `first_stage.run`, the components are those of pictures of 64 px, and grainy.
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
    config.train.update(steps=750, batch_size=256, eval_every=750, save_every=750, grid=32)
    return config


def smoke(config):
    """A tiny one that only shows that everything runs; without first_stage.run."""
    recipes.make_tiny(config)
    config.data.resolution = 32
    config.text.update(encoder="transformer", vocab_size=512, depth=0)
    config.first_stage.cache = False
    config.eigenpictures = {"components": 16, "fit_pictures": 16}
    config.model.update(width=32, depth=2, prototypes=0)
    config.sample.steps = 3


VARIANTS = (smoke,)
