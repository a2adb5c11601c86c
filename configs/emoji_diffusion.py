r"""Real emoji drawn by rectified flow in the latents of a first stage.

python main.py prepare --data=emoji
python main.py train --config=configs/emoji_vqgan.py --workdir=runs/emoji_vqgan
python main.py train --config=configs/emoji_diffusion.py \
    --config.first_stage.run=runs/emoji_vqgan --workdir=runs/emoji_diffusion
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "diffusion"
    config.data = recipes.EMOJI_DATA
    config.text.update(recipes.EMOJI_TEXT)
    config.diffusion = {
        "schedule": "rectified",
        "parameterization": "x0",
        "weighting": "velocity",
        "mean": 0.7,
    }
    config.model = {
        "network": "unet",
        "width": 64,
        "heads": 4,
        "multipliers": (1, 2),
        "attention": (0, 1),
        "blocks": 2,
        "dropout": 0.1,
        "dtype": "float32",
    }
    config.optim.update(recipes.EMOJI_OPTIM)
    config.sample = {"sampler": "dpmpp_2m", "steps": 20, "guidance": 1.5, "candidates": 1}
    config.train.update(steps=2200, batch_size=32, grid=32)
    return config


def smoke(config):
    """A tiny one that only shows that everything runs; in pixels without first_stage.run."""
    recipes.make_tiny(config)
    config.model.update(width=32, heads=2, multipliers=(1, 1), attention=(1,), blocks=1)
    config.sample.steps = 3


VARIANTS = (smoke,)
