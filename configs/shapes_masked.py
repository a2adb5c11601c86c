"""Captioned shapes drawn by a masked transformer, many tokens at once.

python main.py train --config=configs/shapes_vqgan.py --workdir=runs/shapes_vqgan
python main.py train --config=configs/shapes_masked.py --config.first_stage.run=runs/shapes_vqgan --workdir=runs/shapes_masked
"""

from t2i_jax.config import base, make_tiny
from t2i_jax.families.masked import SAMPLE


def get_config(arg=""):
    """arg: "" for the experiment, "smoke" for a tiny one that only shows that everything runs."""
    config = base()
    config.family = "masked"
    config.data = {"name": "shapes", "resolution": 32, "scenes": 0}
    config.text.update({"encoder": "transformer", "length": 12, "vocab_size": 512, "width": 128, "depth": 0, "window": 2})
    config.image_tokenizer = {"patch": 4, "codes": 1024, "fit_pictures": 4000}
    config.model = {"width": 128, "depth": 4, "heads": 4, "reach": 2, "dropout": 0.0, "dtype": "float32"}
    config.mask_schedule = "cosine"
    config.optim.update(
        {
            "name": "muon",
            "learning_rate": 0.02,
            "schedule": "linear",
            "b2": 0.98,
            "weight_decay": 0.0,
            "adam_scale": 3.0,
        }
    )
    config.ema_decay = 0.99
    config.sample = {**SAMPLE, "order": "surprise", "temperature": 0.7, "top_p": 0.8, "guidance": 1.25}
    config.train.update({"steps": 5400, "batch_size": 32, "eval_every": 1800, "save_every": 1800})
    if arg == "smoke":
        make_tiny(config)
        config.data.scenes = 64
        config.image_tokenizer.update({"codes": 64, "fit_pictures": 32})
        config.model.update({"width": 32, "depth": 2, "heads": 2})
    return config
