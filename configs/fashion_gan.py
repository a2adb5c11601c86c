"""Fashion-MNIST drawn by generative adversarial networks.

python main.py prepare --data=fashion_mnist
python main.py train --config=configs/fashion_gan.py --workdir=runs/fashion_gan

Minutes on 2 cores that did other work too, and KID x 1000 (EfficientNet-Lite0): "" 12.6 and 50, class accuracy 0.882 [0.862,
0.901]; "unconditional" 11.6 and 46; "mlp" 1.9 and 140; "stylegan2" 28.6 and 162 (outlines of garments after 64,000 pictures).
"""

from t2i_jax.config import base, make_tiny
from t2i_jax.families.gan import GAN


def get_config(arg=""):
    """arg: "" for a class-conditional DCGAN, "unconditional" for one that is told nothing, "mlp" for the fully connected
    GAN, "stylegan2" for a small StyleGAN2; "smoke", "mlp_smoke" and "stylegan2_smoke" for tiny ones.
    """
    config = base()
    config.family = "gan"
    config.data = {"name": "fashion_mnist", "resolution": 32, "template": "a photo of a {}"}
    config.text.update({"encoder": "classes", "length": 2, "vocab_size": 12, "width": 64})
    config.caption_dropout = 0.0
    config.ema_decay = 0.995
    config.model = {"network": "dcgan", "channels": 1, "latent": 64, "width": 48, "levels": 3, "norm": "none"}
    config.gan = {**GAN, "r1": 1.0, "r1_every": 4}
    config.optim.update({"learning_rate": 5e-4, "schedule": "constant", "b1": 0.5, "weight_decay": 0.0, "clip": 0.0})
    config.sample = {"truncation": 1.0}
    config.train.update({"steps": 2000, "batch_size": 64, "eval_every": 1000, "save_every": 1000, "score_every": 1000})
    if arg.startswith(("unconditional", "mlp", "stylegan2")):
        config.text.encoder = "none"
    if arg.startswith("mlp"):
        config.model = {"network": "mlp_gan", "channels": 1, "latent": 64, "widths": (256, 512)}
        config.train.update({"steps": 12000, "eval_every": 4000, "save_every": 4000, "score_every": 4000})
    if arg.startswith("stylegan2"):
        config.model = {
            "network": "stylegan2",
            "channels": 1,
            "latent": 64,
            "width": 64,
            "base_channels": 512,
            "max_channels": 64,
        }
        config.gan.update({"r1_every": 16, "path_length": 2.0, "path_every": 4, "style_mixing": 0.9})
        config.optim.update({"learning_rate": 2e-3, "b1": 0.0})
        config.train.update({"steps": 2000, "batch_size": 32, "score_every": 1000})
    if arg.endswith("smoke"):
        make_tiny(config)
        config.data.resolution = 28 if arg == "smoke" else 32
        config.model.latent = 8
        if config.model.network == "dcgan":
            config.model.update({"width": 4, "levels": 2})
        elif config.model.network == "mlp_gan":
            config.model.widths = (16, 32)
        else:
            config.model.update({"width": 8, "base_channels": 64, "max_channels": 8})
    return config
