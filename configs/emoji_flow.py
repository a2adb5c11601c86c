"""Real emoji drawn by rectified flow in the latents of a first stage.

python main.py prepare --data=emoji
python main.py train --config=configs/emoji_vqgan.py --workdir=runs/emoji_vqgan
python main.py train --config=configs/emoji_flow.py --config.first_stage.run=runs/emoji_vqgan --workdir=runs/emoji_flow
"""

from t2i_jax.config import base, make_tiny


def get_config(arg=""):
    """arg: "" for the experiment, "smoke" for a tiny one (without a run in first_stage.run: in pixels)."""
    config = base()
    config.family = "flow"
    config.data = {"name": "emoji", "resolution": 32, "styles": ("fluent", "noto", "twemoji")}
    config.text.update({"encoder": "transformer", "length": 24, "vocab_size": 2048, "width": 128, "depth": 0, "window": 2})
    config.diffusion = {"schedule": "rectified", "parameterization": "x0", "weighting": "velocity", "mean": 0.7}
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
    config.optim.update(
        {"name": "muon", "learning_rate": 0.01, "schedule": "linear", "b2": 0.98, "weight_decay": 0.01, "adam_scale": 3.0}
    )
    config.sample = {"sampler": "dpmpp_2m", "steps": 20, "guidance": 1.5, "candidates": 1}
    config.train.update({"steps": 2200, "batch_size": 32, "grid": 32})
    if arg == "smoke":
        make_tiny(config)
        config.model.update({"width": 32, "heads": 2, "multipliers": (1, 1), "attention": (1,), "blocks": 1})
        config.sample.steps = 3
    return config
