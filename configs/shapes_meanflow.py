r"""Captioned shapes drawn in one call of the network, by MeanFlow.

python main.py train --config=configs/shapes_meanflow.py --workdir=runs/shapes_meanflow
python main.py sample --workdir=runs/shapes_meanflow --prompt="a large red circle" \
    --config.sample.steps=2
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "meanflow"
    config.data = recipes.SHAPES_DATA
    config.text.update(recipes.SHAPES_TEXT)
    config.diffusion = {"parameterization": "x0", "time": "logit_normal", "mean": 0.7}
    config.meanflow = {"instant": 0.75, "guidance": 2.0, "kappa": 0.5, "power": 1.0}
    config.model = {
        "network": "unet",
        "width": 32,
        "heads": 4,
        "multipliers": (1, 2, 2),
        "attention": (2,),
        "blocks": 1,
        "dropout": 0.0,
        "dtype": "float32",
    }
    config.optim.update(recipes.SHAPES_OPTIM)
    config.optim.update(learning_rate=0.012, warmup=50)
    config.ema_decay = 0.99
    config.sample = {"steps": 1, "candidates": 1}
    config.train.update(steps=2000, batch_size=32, eval_every=1000, save_every=500)
    return config


def dit(config):
    """A transformer of about as much arithmetic."""
    config.model = {
        "network": "dit",
        "patch": 4,
        "width": 128,
        "depth": 6,
        "heads": 4,
        "gate_init": 0.5,
        "overlap": True,
        "dropout": 0.0,
        "dtype": "float32",
    }


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    dit(config)  # it compiles sooner than a U-Net
    config.model.update(width=32, heads=2, depth=1)


VARIANTS = (dit, smoke)
