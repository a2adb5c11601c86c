"""A class-conditional normalizing flow on Fashion-MNIST, with an exact likelihood.

python main.py prepare --data=fashion_mnist
python main.py train --config=configs/fashion_flow.py --workdir=runs/fashion_flow
"""

from t2i_jax.config import base, recipes


def get_config():
    """Conditional on the class."""
    config = base()
    config.family = "normalizing_flow"
    config.data = recipes.FASHION_DATA
    config.text.update(encoder="classes", length=2, vocab_size=12, width=16)
    config.caption_dropout = 0.05
    config.ema_decay = 0.99
    config.model = {"channels": 1, "levels": 3, "depth": 6, "width": 64}
    config.normalizing_flow = {"margin": 0.01}
    config.optim.update(learning_rate=1e-3, weight_decay=0.0, clip=100.0)
    config.sample = {"temperature": 0.8}
    config.train.update(steps=1000, batch_size=64, eval_every=500, save_every=500)
    return config


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.model.update(levels=2, depth=2, width=8)


VARIANTS = (smoke,)
