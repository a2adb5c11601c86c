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
