r"""Stable Diffusion, trained further on a folder of captioned pictures.

python main.py convert --from=stable-diffusion-v1-5 --workdir=runs/sd
python main.py train --config=configs/stable_diffusion.py --config.init_from=runs/sd \
    --config.data.path=PICTURES --workdir=runs/sd_mine

`sd2` and `sdxl` are the other architectures: configs/stable_diffusion.py:sdxl.

An adapter (LoRA) in place of all weights: configs/stable_diffusion.py:lora, or :sdxl_lora. Then

python main.py sample --workdir=runs/sd_mine --prompt="a cat" --num=4
python main.py convert --workdir=runs/sd_mine --to=mine.safetensors

The vectors of a new token alone (textual inversion): configs/stable_diffusion.py:inversion.
"""

from t2i_jax.config import base, recipes

PAD = {"end": 49407, "zero": 0}  # tokens that fill a caption up


def get_config():
    """Stable Diffusion 1, at 512 px."""
    config = base()
    config.family = "stable_diffusion"
    config.data = {"name": "folder", "resolution": 512}
    config.text = {"encoder": "clip", "length": 77}
    config.text.towers = {"text_encoder": {"variant": "ViT-L/14", "hidden": -1, "pad": PAD["end"]}}
    config.model = {"variant": "SD1"}
    config.vae = {"variant": "SD"}
    config.optim.update(name="adamw", learning_rate=1e-5, weight_decay=0.01)
    config.train.update(steps=1000, batch_size=4)
    return config


def sd2(config):
    """Stable Diffusion 2."""
    config.text.towers = {
        "text_encoder": {"variant": "OpenCLIP-ViT-H", "hidden": -1, "pad": PAD["zero"]}
    }
    config.model.variant = "SD2"


def sdxl(config):
    """Stable Diffusion XL, at 1024 px."""
    config.data.resolution = 1024
    config.text.towers = {
        "text_encoder": {"variant": "ViT-L/14", "hidden": -2, "pad": PAD["end"]},
        "text_encoder_2": {"variant": "OpenCLIP-ViT-bigG", "hidden": -2, "pad": PAD["zero"]},
    }
    config.model.variant = "SDXL"
    config.vae.variant = "SDXL"


def lora(config):
    """An adapter of rank 8 on the attention of the U-Net; all other weights stay."""
    config.lora = {"rank": 8, "paths": r"attention/\w+/kernel$"}
    config.optim.update(learning_rate=1e-4, weight_decay=0.0)


def emoji(config):
    """A small one for emoji of 64 px, from the start (scripts/small_stable_diffusion.py)."""
    from t2i_jax.families.stable_diffusion import SCHEDULER  # imports JAX

    config.data = {**recipes.EMOJI_DATA, "resolution": 64, "styles": ("twemoji",)}
    config.text.length = 16
    tower = dict(vocab_size=1024, length=16, end=1023, width=128, depth=1, heads=4, pad=1023)
    config.text.towers = {"text_encoder": tower}
    config.model = dict(
        in_channels=16,
        out_channels=16,
        channels=(64, 128),
        blocks=1,
        depths=(1, 1),
        heads=(4, 4),
        text_width=128,
    )
    config.vae = dict(latent=16, width=64, multipliers=(1, 1, 1, 1), blocks=1, project=True)
    # Velocity: of noise alone the noise itself says little, and the caption would be learned late.
    config.diffusion = {"scheduler": {**SCHEDULER, "prediction_type": "v_prediction"}}
    config.first_stage.cache = True  # of the latents
    config.optim.update(recipes.EMOJI_OPTIM)
    config.ema_decay = 0.995
    config.sample = {"guidance": 3.0}
    config.train.update(steps=4000, batch_size=32, eval_every=1000, save_every=1000, grid=16)


def inversion(config):
    """The vectors of one new token, <mine>, which stands in the captions; all weights stay."""
    config.text.update(learn="<mine>", start="object")
    config.lora = {"rank": 4, "paths": "/learned$"}
    config.optim.update(learning_rate=1e-3, weight_decay=0.0)


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.data = {"name": "shapes", "resolution": 32, "scenes": 64}
    del config.text["width"]
    config.text.length = 16
    tower = dict(vocab_size=514, length=16, end=513, width=16, depth=2, heads=2, pad=513)
    config.text.towers = {"text_encoder": tower}
    config.model = dict(
        channels=(32,), blocks=1, depths=(0,), middle_depth=1, heads=(1,), text_width=16
    )
    config.vae = dict(latent=4, width=32, multipliers=(1, 1), blocks=1, project=True)
    config.sample = {"steps": 3}


VARIANTS = (sd2, sdxl, lora, inversion, emoji, smoke)
