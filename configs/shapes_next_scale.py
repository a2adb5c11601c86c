r"""Captioned shapes drawn from coarse to fine, a whole grid of codes at a time.

python main.py train --config=configs/shapes_vqgan.py:scales --workdir=runs/scales
python main.py train --config=configs/shapes_next_scale.py \
    --config.first_stage.run=runs/scales --workdir=runs/shapes_next_scale
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "next_scale"
    config.data = recipes.SHAPES_DATA
    config.text.update(recipes.SHAPES_TEXT)
    config.first_stage.cache = True
    config.model = {"width": 128, "depth": 4, "heads": 4, "dropout": 0.0, "dtype": "float32"}
    config.optim.update(recipes.SHAPES_OPTIM)
    config.ema_decay = 0.99
    config.sample = {"temperature": 1.0, "top_k": 0, "top_p": 0.9, "guidance": 1.5, "candidates": 1}
    config.train.update(steps=4500, batch_size=32, eval_every=1500, save_every=1500)
    return config


def smoke(config):
    """A tiny one that shows that everything runs, on a run of shapes_vqgan.py:scales_smoke."""
    recipes.make_tiny(config)
    recipes.make_tiny_transformer(config)


VARIANTS = (smoke,)
