"""Fashion-MNIST drawn by generative adversarial networks.

python main.py prepare --data=fashion_mnist
python main.py train --config=configs/fashion_gan.py --workdir=runs/fashion_gan

Minutes on 2 cores that did other work too, and KID x 1000 (EfficientNet-Lite0): the experiment 12.6
and 50, class accuracy 0.882 [0.862, 0.901]; "unconditional" 11.6 and 46; "mlp" 1.9 and 140;
"stylegan2" 28.6 and 162 (outlines of garments after 64,000 pictures).
"""

from t2i_jax.config import base, recipes


def get_config():
    """A class-conditional DCGAN."""
    config = base()
    config.family = "gan"
    config.data = recipes.FASHION_DATA
    config.text.update(encoder="classes", length=2, vocab_size=12, width=64)
    config.caption_dropout = 0.0
    config.ema_decay = 0.995
    config.model = {
        "network": "dcgan",
        "channels": 1,
        "latent": 64,
        "width": 48,
        "levels": 3,
        "norm": "none",
    }
    config.gan = {"r1": 1.0, "r1_every": 4}
    config.optim.update(recipes.FASHION_GAME_OPTIM)
    config.sample = {"truncation": 1.0}
    config.train.update(
        steps=2000, batch_size=64, eval_every=1000, save_every=1000, score_every=1000
    )
    return config


def unconditional(config):
    """A DCGAN without a condition."""
    config.text.encoder = "none"


def mlp(config):
    """The fully connected GAN, unconditional."""
    unconditional(config)
    config.model = {"network": "mlp_gan", "channels": 1, "latent": 64, "widths": (256, 512)}
    config.train.update(steps=12000, eval_every=4000, save_every=4000, score_every=4000)


def stylegan2(config):
    """A small StyleGAN2, unconditional."""
    unconditional(config)
    config.model = {
        "network": "stylegan2",
        "channels": 1,
        "latent": 64,
        "width": 64,
        "base_channels": 512,
        "max_channels": 64,
    }
    config.gan.update(r1_every=16, path_length=2.0, path_every=4, style_mixing=0.9)
    config.optim.update(learning_rate=2e-3, b1=0.0)
    config.train.update(steps=2000, batch_size=32, score_every=1000)


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.model.latent = 8
    if config.model.network == "dcgan":
        config.model.update(width=4, levels=2)
    elif config.model.network == "mlp_gan":
        config.model.widths = (16, 32)
    else:
        config.model.update(width=8, base_channels=64, max_channels=8)
    if config.text.encoder == "classes":
        config.data.resolution = 28  # the size of the data; the others stay at 32


VARIANTS = (unconditional, mlp, stylegan2, smoke)
