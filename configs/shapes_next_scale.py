"""Captioned shapes drawn from coarse to fine, a whole grid of codes at a time.

python main.py train --config=configs/shapes_vqgan.py:scales --workdir=runs/scales
python main.py train --config=configs/shapes_next_scale.py --config.first_stage.run=runs/scales --workdir=runs/shapes_next_scale
"""

from t2i_jax.config import base, make_tiny


def get_config(arg=""):
    """arg: "" for the experiment, "smoke" for a tiny one (on a first stage of `configs/shapes_vqgan.py:scales_smoke`)."""
    config = base()
    config.family = "next_scale"
    config.data = {"name": "shapes", "resolution": 32, "scenes": 0}
    config.text.update({"encoder": "transformer", "length": 12, "vocab_size": 512, "width": 128, "depth": 0, "window": 2})
    config.first_stage.cache = True
    config.model = {"width": 128, "depth": 4, "heads": 4, "dropout": 0.0, "dtype": "float32"}
    config.optim.update(
        {"name": "muon", "learning_rate": 0.02, "schedule": "linear", "b2": 0.98, "weight_decay": 0.0, "adam_scale": 3.0}
    )
    config.ema_decay = 0.99
    config.sample = {"temperature": 1.0, "top_k": 0, "top_p": 0.9, "guidance": 1.5, "candidates": 1}
    config.train.update({"steps": 4500, "batch_size": 32, "eval_every": 1500, "save_every": 1500})
    if arg == "smoke":
        make_tiny(config)
        config.data.scenes = 64
        config.model.update({"width": 32, "depth": 2, "heads": 2})
    return config
