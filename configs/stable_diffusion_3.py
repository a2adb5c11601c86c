r"""Stable Diffusion 3 or FLUX.1, trained further on a folder of captioned pictures.

python main.py convert --from=stable-diffusion-3-medium-diffusers --workdir=runs/sd3
python main.py train --config=configs/stable_diffusion_3.py --config.init_from=runs/sd3 \
    --config.data.path=PICTURES --workdir=runs/sd3_mine

`sd35`, `sd35large` and `flux` are the other architectures, `lora` trains an adapter in
place of all weights: configs/stable_diffusion_3.py:lora.
"""

from t2i_jax.config import base, recipes

PAD = {"end": 49407, "zero": 0}  # tokens that fill a caption up


def get_config():
    """Stable Diffusion 3 medium, at 1024 px."""
    config = base()
    config.family = "flow_transformer"
    config.data = {"name": "folder", "resolution": 1024}
    config.text = {"encoder": "clip_t5", "length": 77 + 256, "sequence": "both"}
    config.text.towers = {
        "text_encoder": {
            "variant": "ViT-L/14",
            "projection": 768,
            "hidden": -2,
            "pad": PAD["end"],
        },
        "text_encoder_2": {"variant": "OpenCLIP-ViT-bigG", "hidden": -2, "pad": PAD["zero"]},
    }
    config.text.t5 = {"variant": "v1.1-XXL"}
    config.model = {"network": "sd3_transformer", "variant": "SD3-medium"}
    config.vae = {"variant": "SD3"}
    config.optim.update(name="adamw", learning_rate=1e-5, weight_decay=0.0)
    config.train.update(steps=1000, batch_size=4)
    return config


def sd35(config):
    """Stable Diffusion 3.5 medium."""
    config.model.variant = "SD3.5-medium"


def sd35large(config):
    """Stable Diffusion 3.5 large."""
    config.model.variant = "SD3.5-large"


def flux(config):
    """FLUX.1-dev: T5's vectors alone, and the strength of guidance as an input."""
    config.text.update(length=77 + 512, sequence="t5")
    config.text.towers = {"text_encoder": {"variant": "ViT-L/14", "hidden": -1, "pad": PAD["end"]}}
    config.model = {"network": "flux_transformer", "variant": "FLUX.1-dev"}
    config.vae.variant = "FLUX"


def lora(config):
    """An adapter of rank 8 on the attention of the transformer; all other weights stay."""
    config.lora = {"rank": 8, "paths": r"(query|key|value|out)/kernel$"}
    config.optim.update(learning_rate=1e-4)


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.data = {"name": "shapes", "resolution": 8, "scenes": 64}
    del config.text["width"]
    config.text.length = 16 + 12
    tower = dict(vocab_size=514, length=16, end=513, width=16, depth=1, heads=2, pad=513)
    config.text.towers = {"text_encoder": {**tower, "projection": 8}}
    config.text.t5 = dict(width=16, depth=1, heads=2, mlp=16, head_dim=8, vocab_size=300)
    config.model = dict(
        network="sd3_transformer", depth=1, heads=2, qk_norm=True, head_dim=8, grid=4, max_grid=8
    )
    config.vae = dict(latent=4, width=32, multipliers=(1,), blocks=1, project=False)
    config.sample = {"steps": 2}


VARIANTS = (sd35, sd35large, flux, lora, smoke)
