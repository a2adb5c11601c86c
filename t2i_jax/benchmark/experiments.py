"""The configs of the rows: what is trained, at the sizes that are measured.

All have AdamW with clipping and a running average of the weights, and train on captioned shapes.
"""

from collections.abc import Callable
from typing import Any

from t2i_jax.config import base, recipes
from t2i_jax.config.files import from_dict

ADAMW = {"name": "adamw", "learning_rate": 1e-4, "schedule": "constant", "warmup": 0, "clip": 1.0}


def make_config(family: str, batch_size: int, set_up: Callable[[Any], None]) -> Any:
    """Return a complete, locked config of a family. set_up: (config) -> None sets the rest."""
    config = base()
    config.family = family
    config.data = {**recipes.SHAPES_DATA, "scenes": 512}
    config.text.update(recipes.SHAPES_TEXT)
    config.optim.update(ADAMW)
    config.train.update(batch_size=batch_size)
    set_up(config)
    return from_dict(config.to_dict())


def dit(batch_size: int, **model) -> Any:
    """Return a diffusion transformer in pixels (arXiv 2212.09748), trained by rectified flow."""

    def set_up(config):
        config.model = {"network": "dit", **model}
        config.diffusion = {"schedule": "rectified", "parameterization": "velocity"}

    return make_config("diffusion", batch_size, set_up)


def unet(batch_size: int, **model) -> Any:
    """Return a U-Net in pixels, trained by rectified flow."""

    def set_up(config):
        config.model = {"network": "unet", **model}
        config.diffusion = {"schedule": "rectified", "parameterization": "velocity"}

    return make_config("diffusion", batch_size, set_up)


def codes(family: str, batch_size: int, codes: int = 1024, **model) -> Any:
    """Return a transformer over codes of patches: "autoregressive" or "masked"."""

    def set_up(config):
        config.model = dict(model)
        config.image_tokenizer = {**recipes.SHAPES_CODES, "codes": codes, "fit_pictures": 512}

    return make_config(family, batch_size, set_up)


def autoencoder(batch_size: int, resolution: int, **model) -> Any:
    """Return the autoencoder of latent diffusion (arXiv 2112.10752), without a discriminator."""

    def set_up(config):
        config.data.resolution = resolution
        config.model = dict(model)
        config.quantizer = {"kind": "kl", "dim": 4}
        config.vqgan = {"l1": 1.0, "l2": 1.0, "quantizer": 1e-6}

    return make_config("vqgan", batch_size, set_up)


def dcgan(batch_size: int, **model) -> Any:
    """Return a DCGAN (arXiv 1511.06434) whose captions modulate its norms."""

    def set_up(config):
        config.model = {"network": "dcgan", **model}

    return make_config("gan", batch_size, set_up)


def published_unet(side: int, part: str = "", **model) -> dict[str, Any]:
    """Return what is called of the U-Net of Stable Diffusion (models/sd_unet.py).

    side: of its latents; of a part, of the cells in the middle.
    part: "", or "mid_block.attentions.0" for the transformer in the middle alone.
    model: the fields of the U-Net, or its variant.
    """
    return {"side": side, "part": part, "model": model}


def drawn(config_of: Callable[[], Any], batch_size: int, **sample) -> Any:
    """Return a config for drawing, with these settings of the section "sample"."""
    config = config_of().to_dict()
    config["train"]["batch_size"] = batch_size
    config["sample"].update(sample)
    return from_dict(config)
