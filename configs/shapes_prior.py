"""unCLIP on shapes: a prior, which draws embeddings for captions, and a decoder of embeddings.

python main.py train --config=configs/shapes_contrastive.py --workdir=runs/shapes_contrastive
python main.py train --config=configs/shapes_prior.py --config.first_stage.run=runs/shapes_contrastive --workdir=runs/shapes_prior
python main.py train --config=configs/shapes_code_diffusion.py:dit --config.embedder.run=runs/shapes_contrastive --config.prior.run=runs/shapes_prior --workdir=runs/shapes_unclip
"""  # noqa: E501

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "prior"
    config.data = recipes.SHAPES_DATA
    config.text.update(recipes.SHAPES_TEXT)
    config.first_stage.cache = True
    config.model = {"width": 256, "depth": 3, "dtype": "float32"}
    config.optim.update(learning_rate=1e-3, weight_decay=0.0)
    config.ema_decay = 0.999
    config.train.update(steps=2500, batch_size=128, log_every=100, eval_every=1250, save_every=1250)
    return config


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.first_stage.cache = False
    config.model.update(width=16, depth=1)
    config.sample = {"steps": 3}


VARIANTS = (smoke,)
