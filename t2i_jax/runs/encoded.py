"""Codes and latents from outside: read from a file, and checked against a model."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import Shaped

from t2i_jax.core.family import Ability, Variables


def check_encoded(
    encoded: Shaped[np.ndarray, "..."], encode: Ability, variables: Variables, side: int
) -> None:
    """Raise ValueError unless `encoded` is what a model encodes some pictures to.

    encode: the ability of the model, with its `variables`, and the side of its pictures in pixels.
    """
    inputs = {"image": jax.ShapeDtypeStruct((1, side, side, 3), np.uint8)}
    own = jax.eval_shape(lambda v, x: encode(v, x, None), variables, inputs)
    if encoded.dtype.kind != own.dtype.kind or encoded.shape[1:] != own.shape[1:]:
        right = f"{own.dtype} [N, {', '.join(map(str, own.shape[1:]))}]"
        raise ValueError(f"this model decodes {right}, not {encoded.dtype} {[*encoded.shape]}")
    if not len(encoded):
        raise ValueError("nothing to decode: give the codes of at least one picture")


def read_codes(path) -> np.ndarray:
    """Read a file of `encode`. Raises FileNotFoundError if there is none, ValueError if damaged."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"--codes: there is no file {path}: name a file of the command encode"
        )
    try:
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds for broken bytes
        raise ValueError(
            f"--codes: {path} is damaged, or no file of the command encode ({error})"
        ) from error
