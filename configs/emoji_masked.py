"""Real emoji drawn by a masked transformer, many codes at once.

python main.py prepare --data=emoji
python main.py train --config=configs/emoji_vqgan.py --workdir=runs/emoji_vqgan
python main.py train --config=configs/emoji_masked.py --config.first_stage.run=runs/emoji_vqgan --workdir=runs/emoji_masked
"""

from t2i_jax.config import base, make_tiny
from t2i_jax.families.masked import SAMPLE


def get_config(arg=""):
    """arg: "" for the experiment, "smoke" for a tiny one (without a run in first_stage.run: over a codebook of patches)."""
    config = base()
    config.family = "masked"
    config.data = {"name": "emoji", "resolution": 32, "styles": ("fluent", "noto", "twemoji")}
    config.text.update({"encoder": "transformer", "length": 24, "vocab_size": 2048, "width": 128, "depth": 0, "window": 2})
    config.image_tokenizer = {"patch": 4, "codes": 2048, "fit_pictures": 4031}
    config.model = {"width": 128, "depth": 4, "heads": 4, "reach": 1, "dropout": 0.1, "dtype": "float32"}
    config.mask_schedule = "cosine"
    config.optim.update(
        {"name": "muon", "learning_rate": 0.01, "schedule": "linear", "b2": 0.98, "weight_decay": 0.01, "adam_scale": 3.0}
    )
    config.sample = {**SAMPLE, "steps": 16, "choice_temperature": 4.0, "temperature": 0.8}
    config.train.update({"steps": 4500, "batch_size": 32, "grid": 32})
    if arg == "smoke":
        make_tiny(config)
        config.image_tokenizer.update({"codes": 32, "fit_pictures": 16})
        config.model.update({"width": 32, "depth": 2, "heads": 2})
    return config
