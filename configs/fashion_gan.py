"""Fashion-MNIST drawn by generative adversarial networks.

python main.py prepare --data=fashion_mnist
python main.py train --config=configs/fashion_gan.py --workdir=runs/fashion_gan
"""

from t2i_jax.config import base, make_tiny


def get_config(arg=""):
    """arg: "" for a class-conditional DCGAN, "unconditional" for one that is told nothing, "mlp" for the fully connected
    GAN, "stylegan2" for a small StyleGAN2; "smoke", "mlp_smoke" and "stylegan2_smoke" for tiny ones.
    """
    config = base()
    config.family = "gan"
    config.data = {"name": "fashion_mnist", "resolution": 32, "template": "a photo of a {}"}
    config.text.update({"encoder": "classes", "length": 2, "vocab_size": 16, "width": 64})
    config.caption_dropout = 0.0
    config.ema_decay = 0.995
    config.model = {"network": "dcgan", "channels": 1, "latent": 64, "width": 48, "levels": 3, "norm": "batch"}
    config.gan = {"loss": "nonsaturating", "r1": 0.0, "r1_every": 1, "augment": "", "mismatch": 0.0}
    config.optim.update({"learning_rate": 2e-4, "schedule": "constant", "b1": 0.5, "weight_decay": 0.0, "clip": 0.0})
    config.sample = {"truncation": 1.0}
    config.train.update({"steps": 2500, "batch_size": 64})
    if arg.startswith(("unconditional", "mlp", "stylegan2")):
        config.text.encoder = "none"
    if arg.startswith("mlp"):
        config.model = {"network": "mlp_gan", "channels": 1, "latent": 64, "widths": (256, 512)}
    if arg.startswith("stylegan2"):
        config.model = {"network": "stylegan2", "channels": 1, "latent": 64}
        config.gan.update({"r1": 1.0, "r1_every": 16, "path_length": 2.0, "path_every": 4, "style_mixing": 0.9})
    if arg.endswith("smoke"):
        make_tiny(config)
    return config
