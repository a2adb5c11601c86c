"""Captioned shapes drawn by rectified flow.

python main.py train --config=configs/shapes_flow.py --workdir=runs/shapes_flow

In the latents of a first stage:
python main.py train --config=configs/shapes_vqgan.py --workdir=runs/shapes_vqgan
python main.py train --config=configs/shapes_flow.py:latent --config.first_stage.run=runs/shapes_vqgan --workdir=runs/latent
"""

from t2i_jax.config import base, make_tiny


def get_config(arg=""):
    """arg: "" for the experiment, "small" for a third of the parameters, "unet" for a U-Net of about as much arithmetic,
    "latent" for one in latents of 8 x 8, "smoke" (or "unet_smoke") for a tiny one.
    """
    config = base()
    config.family = "flow"
    config.data = {"name": "shapes", "resolution": 32, "scenes": 0}
    config.text.update({"encoder": "transformer", "length": 12, "vocab_size": 512, "width": 128, "depth": 0, "window": 2})
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
    config.optim.update(
        {
            "name": "muon",
            "learning_rate": 0.012,
            "schedule": "linear",
            "warmup": 50,
            "b2": 0.98,
            "weight_decay": 0.0,
            "adam_scale": 3.0,
        }
    )
    config.ema_decay = 0.99
    config.sample = {"sampler": "dpmpp_2m", "steps": 20, "guidance": 2.0, "candidates": 1}
    config.train.update({"steps": 3200, "batch_size": 32, "eval_every": 1600, "save_every": 800})
    if arg == "small":
        config.model.update({"width": 96, "depth": 4, "heads": 3})
    if arg.startswith("unet"):
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
    if arg == "latent":
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
    if arg.endswith("smoke"):
        make_tiny(config)
        config.data.scenes = 64
        config.model.update({"width": 32, "heads": 2})
        config.model.update(
            {"depth": 2} if config.model.network == "dit" else {"multipliers": (1, 1), "attention": (1,), "blocks": 1}
        )
        config.sample.steps = 3
    return config
