"""Stable Diffusion 1, 2 and XL in one .safetensors file, with the names of the original programs.

A file has the arrays alone. The tokenizer is that of a package (text/clip_tokenizer.py); the rest
is what the first programs had in a file of settings.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from t2i_jax.convert.diffusers import DTYPES, Description, assemble
from t2i_jax.convert.diffusers_parts import describe_tower, with_special_tokens
from t2i_jax.core.importer import Imported, Importer, only_converted
from t2i_jax.text import clip_tokenizer
from t2i_jax.text.clip import BEFORE_LAST, FINAL
from t2i_jax.weights.single_file import kind, parts
from t2i_jax.weights.stored import PICKLES, open_file

ALL = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
SCHEDULERS = {
    "SD1": {"_class_name": "PNDMScheduler", **ALL, "skip_prk_steps": True},
    "SD2": {"_class_name": "DDIMScheduler", **ALL, "clip_sample": False},
    "SDXL": {"_class_name": "EulerDiscreteScheduler", **ALL},
}
SIDES = {"SD1": 64, "SD2": 96, "SDXL": 128}  # of the latents
GUIDANCE = {"SD1": 7.5, "SD2": 7.5, "SDXL": 5.0}
# The steps of training of the one file of version 2 that predicts noise and says how old it is.
NOISE_STEP, NOISE_SIDE = 875_000, 64
PARAMETERIZATION = re.compile(r"^\s*parameterization:\s*[\"']?(\w+)", re.MULTILINE)
PREDICTIONS = {"v": "v_prediction", "eps": "epsilon"}


def importer(path) -> Importer | None:
    """Return the importer of the file `path`, or None if it is no file of weights."""
    path = Path(path)
    if not path.is_file() or path.suffix not in (".safetensors", *PICKLES):
        return None
    return only_converted("a published model in one file", path, read)


def read(path: Path, dtype: str = "float32") -> Imported:
    """Read a model.

    dtype: of the parameters and of the computation, one of DTYPES.
    Raises ValueError for a pickle, for a file of another kind, and for arrays that do not fit;
    FileNotFoundError, saying how to get it, without the tokenizer.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}: it can be {', '.join(DTYPES)}")
    if path.suffix in PICKLES:
        raise ValueError(
            f"{path} is a pickle, which could run any code when it is read: get the .safetensors "
            "of the same model"
        )
    stored = open_file(path)
    variant = kind(stored, str(path))
    if variant not in SCHEDULERS:
        raise ValueError(f"{path} is of the refiner of XL, which draws nothing by itself")
    found = parts(stored, str(path))
    tokenizer = with_special_tokens(clip_tokenizer.of_package())
    end = tokenizer.get_vocab()[clip_tokenizer.END]
    hidden = BEFORE_LAST if variant == "SDXL" else FINAL
    encoders = {name: part.net for name, part in found.items() if name not in ("unet", "vae")}
    towers = {
        # OpenCLIP fills captions up with token 0.
        name: describe_tower(net, hidden, 0 if net.activation == "gelu" else end, dtype)
        for name, net in encoders.items()
    }
    scheduler, side = _scheduler(path, variant, stored)
    about = Description(
        unet=found["unet"].net,
        vae=found["vae"].net,
        towers=towers,
        length=min(net.length for net in encoders.values()),
        scheduler=scheduler,
        guidance=GUIDANCE[variant],
        sides=(side, side),
        zeros=variant == "SDXL",
    )
    arrays = {
        name: part.read(part.arrays, part.net, str(path), jnp.dtype(dtype))
        for name, part in found.items()
    }
    return assemble(about, arrays, tokenizer, dtype)


def _scheduler(path: Path, variant: str, stored: Mapping[str, np.ndarray]) -> tuple[dict, int]:
    """Return (the scheduler_config.json, the side of the latents) of a model.

    What the U-Net predicts is what a .yaml of the same name says, as the first programs have it.
    Without one, version 2 predicts the velocity, except for the file of NOISE_STEP steps.
    """
    step = int(stored["global_step"]) if "global_step" in stored else 0
    young = variant == "SD2" and step == NOISE_STEP
    prediction = "epsilon" if variant != "SD2" or young else "v_prediction"
    settings = path.with_suffix(".yaml")
    if settings.is_file():
        said = PARAMETERIZATION.search(settings.read_text(encoding="utf-8"))
        name = said[1] if said else "eps"
        if name not in PREDICTIONS:
            raise ValueError(
                f"{settings} has parameterization {name!r}: it can be {', '.join(PREDICTIONS)}"
            )
        prediction = PREDICTIONS[name]
    scheduler = {**SCHEDULERS[variant], "prediction_type": prediction}
    if prediction != "epsilon" and variant == "SD1":  # which PNDM does not know
        scheduler |= {"_class_name": "DDIMScheduler", "clip_sample": False}
    return scheduler, NOISE_SIDE if young else SIDES[variant]
