"""Captioned shapes drawn by diffusion; the network tells the codes of a noisy picture.

python main.py train --config=configs/shapes_code_diffusion.py --workdir=runs/shapes_code_diffusion
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "code_diffusion"
    config.data = recipes.SHAPES_DATA
    config.text.update(recipes.SHAPES_TEXT)
    config.image_tokenizer = recipes.SHAPES_PAIRS
    config.diffusion = {"schedule": "rectified", "time": "uniform", "shift": 4.0}
    config.model = {
        "network": "unet",
        "patch": 2,
        "width": 64,
        "heads": 4,
        "multipliers": (1, 2),
        "attention": (1,),
        "blocks": 1,
        "positions": True,
        "dropout": 0.0,
        "dtype": "float32",
    }
    config.optim.update(recipes.SHAPES_OPTIM)
    config.optim.update(learning_rate=0.008, warmup=50)
    config.ema_decay = 0.99
    config.sample = {
        "sampler": "dpmpp_2m_sde",
        "steps": 16,
        "guidance": 1.25,
        "shift": 2.0,
        "candidates": 1,
    }
    config.train.update(steps=2000, batch_size=32, eval_every=1000, save_every=1000)
    return config


def dit(config):
    """A transformer of less arithmetic."""
    config.optim.learning_rate = 0.006
    config.model = {
        "network": "dit",
        "patch": 4,
        "width": 128,
        "depth": 6,
        "heads": 4,
        "gate_init": 0.5,
        "overlap": True,
        "local": True,
        "dropout": 0.0,
        "dtype": "float32",
    }


def gated(config):
    """That transformer, with attention of its own to the words: the best (docs/fusion.md)."""
    dit(config)
    config.model.text_mode = "gated"


def smoke(config):
    """A tiny transformer that only shows that everything runs."""
    dit(config)
    recipes.make_tiny(config)
    config.image_tokenizer.update(codes=64, pairs=0, fit_pictures=32)
    config.model.update(width=32, depth=2, heads=2)
    config.sample.steps = 3


VARIANTS = (dit, gated, smoke)
