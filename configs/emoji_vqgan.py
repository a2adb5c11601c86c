"""A first stage for emoji: 8 x 8 codes of a picture, out of 2,048.

python main.py prepare --data=emoji
python main.py train --config=configs/emoji_vqgan.py --workdir=runs/emoji_vqgan

Then what draws them, on it:
python main.py train --config=configs/emoji.py --config.first_stage.run=runs/emoji_vqgan --workdir=runs/emoji_on_vqgan
"""

from t2i_jax.config import base, make_tiny
from t2i_jax.families.vqgan import VQGAN


def get_config(arg=""):
    """arg: "" for the experiment, "smoke" for a tiny one."""
    config = base()
    config.family = "vqgan"
    config.data = {"name": "emoji", "resolution": 32, "styles": ("fluent", "noto", "twemoji")}
    config.text.update({"encoder": "none", "length": 2})
    config.caption_dropout = 0.0
    config.ema_decay = 0.99
    config.model = {
        "encoder": "patches",
        "width": 96,
        "multipliers": (1,),
        "blocks": 1,
        "attention": (),
        "middle_attention": False,
        "patch": 4,
        "resample": "fold",
        "dtype": "float32",
    }
    config.quantizer = {"kind": "ema", "size": 2048, "dim": 48, "normalize": False}
    config.vqgan = {**VQGAN, "l1": 1.0, "l2": 10.0}
    config.optim.update({"name": "muon", "learning_rate": 0.02, "schedule": "linear", "b2": 0.98, "weight_decay": 0.0})
    config.train.update({"steps": 4000, "batch_size": 32, "eval_every": 1000, "save_every": 1000, "grid": 32})
    if arg == "smoke":
        make_tiny(config)
        config.model.width = 8
        config.quantizer.size = 16
    return config
