"""A VAE-GAN on Fashion-MNIST: codes of 32 numbers, reconstructions judged in the discriminator's features.

python main.py train --config=configs/fashion_vae_gan.py --workdir=runs/fashion_vae_gan

7.1 minutes on 2 cores that did other work too; KID x 1000 (EfficientNet-Lite0) of pictures drawn from the prior: 135.
"""

from t2i_jax.config import base, make_tiny
from t2i_jax.families.gan import GAN


def get_config(arg=""):
    """arg: "" for the experiment, "smoke" for a tiny one."""
    config = base()
    config.family = "vae_gan"
    config.data = {"name": "fashion_mnist", "resolution": 32, "template": "a photo of a {}"}
    config.text.update({"encoder": "none", "length": 2})
    config.caption_dropout = 0.0
    config.ema_decay = 0.995
    config.model = {"network": "dcgan", "channels": 1, "latent": 32, "width": 48, "levels": 3, "norm": "none"}
    config.encoder = {"net": "dense", "width": 256, "multipliers": (2, 1)}
    config.gan = {**GAN, "r1": 1.0, "r1_every": 16}
    config.vae_gan = {"beta": 1.0, "warmup": 0, "likeness": 0.01}
    config.optim.update({"learning_rate": 5e-4, "schedule": "constant", "b1": 0.5, "weight_decay": 0.0, "clip": 0.0})
    config.sample = {"temperature": 1.0}
    config.train.update({"steps": 1000, "batch_size": 64, "score_every": 500})
    if arg == "smoke":
        make_tiny(config)
        config.model.update({"latent": 8, "width": 4})
        config.encoder.update({"width": 16})
    return config
