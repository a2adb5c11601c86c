"""Variational autoencoders on Fashion-MNIST: codes of 16 numbers for pictures of clothes.

python main.py prepare --data=fashion_mnist
python main.py train --config=configs/fashion_vae.py --workdir=runs/fashion_vae

Minutes on 2 cores that did other work too, and KID x 1000 (EfficientNet-Lite0): the experiment 3.0
and 76; "beta" 3.9 and 114; "denoising" 3.9 and 87; "cvae" 2.1 (0.8 alone) and 77, class accuracy
0.914 [0.896, 0.931] of 1,000 (of real pictures 0.917). "few" was not measured
so; "narrow", "private" and "planted" are in docs/privacy.md.
"""

from t2i_jax.config import base, recipes


def get_config():
    """An unconditional VAE."""
    config = base()
    config.family = "vae"
    config.data = recipes.FASHION_DATA
    config.text.update(encoder="none", length=2)
    config.model = {
        "latent": 16,
        "net": "dense",
        "width": 256,
        "multipliers": (2, 1),
        "hidden": 256,
        "channels": 1,
        "likelihood": "bernoulli",
        "scale": "fixed",
        "log_scale": 0.0,
        "dtype": "float32",
    }
    config.vae = {"beta": 1.0, "warmup": 0, "free_bits": 0.0, "denoise": 0.0}
    config.caption_dropout = 0.0
    config.optim.update(learning_rate=2e-3, weight_decay=0.0, clip=100.0)
    config.sample = {"temperature": 1.0}
    config.train.update(steps=4000, batch_size=128, eval_every=2000, save_every=2000)
    return config


def beta(config):
    """A beta-VAE with KL warm-up and free bits."""
    config.vae.update(beta=4.0, warmup=1000, free_bits=0.05)


def cvae(config):
    """Conditional on the class."""
    config.text.update(encoder="classes", vocab_size=12, width=16)
    config.sample.temperature = 0.8
    # Seldom: without its caption, a picture's class must be in the code, which then always has it.
    config.caption_dropout = 0.05


def few(config):
    """Conditional on the class, of 100 pictures of each (scripts/few_real_pictures.py)."""
    cvae(config)
    config.data = {"name": "folder", "path": "few_real", "resolution": 32}
    config.train.update(steps=1500, eval_every=0, save_every=500)


def narrow(config):
    """Conditional on the class, narrow, in large batches: "private" without privacy."""
    cvae(config)
    config.model.update(latent=8, width=32, hidden=32)
    config.optim.learning_rate = 8e-3
    config.train.update(steps=1000, batch_size=512, eval_every=0, save_every=500)


def private(config):
    """The same, trained privately: epsilon 8 at delta 1e-6 (docs/privacy.md)."""
    narrow(config)
    config.privacy.update(clip=1.0, noise=0.58, epsilon=8.0, delta=1e-6)
    # One example after another: on CPU, their gradients then stay in the cache (docs/privacy.md).
    # On a GPU, or on several devices, which 512 parts do not fit: --config.train.accumulate=1.
    config.train.accumulate = 512


def planted(config):
    """`narrow`, with 16 patterns among the training pictures, which it may give away."""
    narrow(config)
    config.data = {
        "name": "canaries",
        "among": {"name": recipes.FASHION_DATA["name"]},
        "count": 16,
        "copies": 1,
        "resolution": recipes.FASHION_DATA["resolution"],
    }
    config.text.vocab_size = 12 + 16


def denoising(config):
    """Takes noisy pictures and learns to return clean ones."""
    config.vae.denoise = 128.0


def smoke(config):
    """A tiny one, all of the above at once, that only shows that everything runs."""
    classes = config.text.vocab_size if config.data.name == "canaries" else 12
    for variant in (beta, cvae, denoising):
        variant(config)
    config.text.vocab_size = classes
    recipes.make_tiny(config)
    config.train.accumulate = 1
    config.train.batch_size = 64 if config.privacy.clip else config.train.batch_size
    config.vae.warmup = 3
    config.model.update(net="conv", width=8, multipliers=(1, 1), hidden=16)


VARIANTS = (beta, cvae, few, narrow, private, planted, denoising, smoke)
