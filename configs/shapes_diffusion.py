r"""Captioned shapes drawn by rectified flow.

python main.py train --config=configs/shapes_diffusion.py --workdir=runs/shapes_diffusion

In the latents of a first stage:
python main.py train --config=configs/shapes_vqgan.py --workdir=runs/shapes_vqgan
python main.py train --config=configs/shapes_diffusion.py:latent \
    --config.first_stage.run=runs/shapes_vqgan --workdir=runs/latent
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "diffusion"
    config.data = recipes.SHAPES_DATA
    config.text.update(recipes.SHAPES_TEXT)
    config.diffusion = {
        "schedule": "rectified",
        "parameterization": "x0",
        "weighting": "velocity",
        "time": "logit_normal",
        "mean": 0.7,
        "std": 1.0,
        "shift": 1.0,
    }
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
    config.optim.update(recipes.SHAPES_OPTIM)
    config.optim.update(learning_rate=0.012, warmup=50)
    config.ema_decay = 0.99
    config.sample = {"sampler": "dpmpp_2m", "steps": 20, "guidance": 2.0, "candidates": 1}
    config.train.update(steps=3200, batch_size=32, eval_every=1600, save_every=800)
    return config


def small(config):
    """A third of the parameters."""
    config.model.update(width=96, depth=4, heads=3)


def unet(config):
    """A U-Net of about as much arithmetic."""
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
    config.train.steps = 2000


def latent(config):
    """A U-Net in latents of 8 x 8, those of first_stage.run."""
    config.first_stage.cache = True
    config.train.steps = 5000
    config.model = {
        "network": "unet",
        "width": 64,
        "heads": 4,
        "multipliers": (1, 2),
        "attention": (0, 1),
        "blocks": 2,
        "dropout": 0.0,
        "dtype": "float32",
    }


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.model.update(width=32, heads=2)
    if config.model.network == "dit":
        config.model.depth = 2
    else:
        config.model.update(multipliers=(1, 1), attention=(1,), blocks=1)
    config.sample.steps = 3


VARIANTS = (small, unet, latent, smoke)
