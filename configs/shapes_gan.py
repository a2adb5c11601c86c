"""Captioned shapes drawn by a text-conditional DCGAN whose players attend to the words.

python main.py train --config=configs/shapes_gan.py --workdir=runs/shapes_gan

22 minutes on 2 cores that did other work too; 0.022 [0.013, 0.032] of 1,000 `test` captions exactly
right; colour 0.25 (of shuffled captions 0.01), count 0.27 (0.14), relation 0.56 (0.04). Measured
when the wrong caption of `mismatch` was that of the next picture, not the most alike of the batch.
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "gan"
    config.data = recipes.SHAPES_DATA
    config.text.update(recipes.SHAPES_TEXT)
    config.caption_dropout = 0.0
    config.ema_decay = 0.995
    config.model = {
        "network": "dcgan",
        "channels": 3,
        "latent": 64,
        "width": 64,
        "levels": 3,
        "norm": "none",
        "attention": (8,),
        "heads": 4,
    }
    config.gan = {"mismatch": 1.0, "r1": 1.0, "r1_every": 4}
    config.optim.update(learning_rate=5e-4, schedule="linear", b1=0.0, weight_decay=0.0, clip=0.0)
    config.sample = {"truncation": 1.0}
    config.train.update(
        steps=2400, batch_size=32, eval_every=1200, save_every=600, score_every=1200
    )
    return config


def smoke(config):
    """A tiny one, with spectral norm, that only shows that everything runs."""
    recipes.make_tiny(config)
    config.data.resolution = 8
    config.model.update(latent=8, width=8, levels=1, attention=(), norm="spectral")


VARIANTS = (smoke,)
