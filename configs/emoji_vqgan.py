r"""A first stage for emoji: 8 x 8 codes of a picture, out of 2,048.

python main.py prepare --data=emoji
python main.py train --config=configs/emoji_vqgan.py --workdir=runs/emoji_vqgan

Then a model that draws its codes:
python main.py train --config=configs/emoji.py \
    --config.first_stage.run=runs/emoji_vqgan --workdir=runs/emoji_on_vqgan

`latents` is the autoencoder of a small Stable Diffusion (scripts/small_stable_diffusion.py).
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "vqgan"
    config.data = recipes.EMOJI_DATA
    config.text.update(encoder="none", length=2)
    config.caption_dropout = 0.0
    config.ema_decay = 0.99
    config.model = {**recipes.PATCH_AUTOENCODER, "width": 96}
    config.quantizer = recipes.PATCH_QUANTIZER
    config.vqgan = {"l1": 1.0, "l2": 10.0}
    config.optim.update(recipes.VQGAN_OPTIM)
    config.train.update(steps=4000, batch_size=32, eval_every=1000, save_every=1000, grid=32)
    return config


def latents(config):
    """An autoencoder of latent diffusion: 8 x 8 latents of a picture of 64 px, from 32 px ones."""
    config.model = {"width": 64, "multipliers": (1, 1, 1, 1), "blocks": 1, "project": True}
    config.quantizer = {"kind": "kl", "dim": 16}
    config.vqgan.quantizer = 1e-6
    config.train.update(steps=250, eval_every=125, save_every=125)


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.model.width = 8
    if "size" in config.quantizer:
        config.quantizer.size = 16


VARIANTS = (latents, smoke)
