"""A first stage for captioned shapes: 8 x 8 codes of a picture, out of 2,048.

python main.py train --config=configs/shapes_vqgan.py --workdir=runs/shapes_vqgan
"""

from t2i_jax.config import base, make_tiny
from t2i_jax.families.vqgan import VQGAN

QUANTIZERS = {
    "patches": {"kind": "ema", "size": 2048, "dim": 48, "normalize": False},
    "fsq": {"kind": "fsq", "levels": (8, 5, 5, 5)},
    "ema": {"kind": "ema", "size": 1024, "dim": 8, "normalize": True},
    "vq": {"kind": "vq", "size": 1024, "dim": 8, "normalize": True},
    "lfq": {"kind": "lfq", "bits": 10},
    "kl": {"kind": "kl", "dim": 4},
    "scales": {"kind": "ema", "size": 2048, "dim": 48, "normalize": False, "scales": (1, 2, 4, 8)},
}


def get_config(arg=""):
    """arg: "" for the experiment, whose codes are of the pixels of their own cells alone, "scales" for such codes on four
    grids (for family next_scale); "fsq", "ema", "vq" or "lfq" for a convolutional encoder and that quantizer, "kl" for
    latents without codes, "gan" for "fsq" with a discriminator of patches; "smoke" (or "ema_smoke", ...) for a tiny one.
    """
    kind = arg.removesuffix("smoke").rstrip("_") or "patches"
    patches = kind in ("patches", "scales")
    config = base()
    config.family = "vqgan"
    config.data = {"name": "shapes", "resolution": 32, "scenes": 0}
    config.text.update({"encoder": "none", "length": 2})
    config.caption_dropout = 0.0
    config.ema_decay = 0.99
    config.model = {
        "encoder": "patches" if patches else "convolutional",
        "width": 64,
        "multipliers": (1,),
        "blocks": 1,
        "attention": (),
        "middle_attention": False,
        "patch": 4,
        "resample": "fold",
        "dtype": "float32",
    }
    config.quantizer = QUANTIZERS["fsq" if kind == "gan" else kind]
    config.vqgan = {**VQGAN, "l1": 1.0, "l2": 10.0 if patches else 3.0}
    config.discriminator = {"width": 32, "levels": 2}
    config.optim.update({"name": "muon", "learning_rate": 0.02, "schedule": "linear", "b2": 0.98, "weight_decay": 0.0})
    config.train.update({"steps": 5000 if patches else 2000, "batch_size": 32, "eval_every": 1000, "save_every": 1000})
    if kind == "kl":
        config.vqgan.quantizer = 1e-6
    if kind == "gan":
        config.vqgan.update({"adversarial": 0.1, "start": 1000})
        config.optim.players = {"discriminator": {"name": "adamw", "learning_rate": 5e-4, "b1": 0.5}}
    if arg.endswith("smoke"):
        make_tiny(config)
        config.data.scenes = 64
        config.model.update({"width": 8, "multipliers": (1, 1), "patch": 2})
        config.vqgan.start = 0
        if config.quantizer.kind == "fsq":
            config.quantizer.levels = (4, 4)
        if config.quantizer.kind in ("ema", "vq"):
            config.quantizer.update({"size": 16, "dim": 48 if patches else 4})
    return config
