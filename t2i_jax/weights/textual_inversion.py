"""Learned embeddings of a new token (textual inversion, arXiv 2208.01618) in safetensors files.

diffusers      {"<token>": [D] or [vectors, D]}
AUTOMATIC1111  {"emb_params": [vectors, D]}; the token is the name of the file
for XL         {"clip_l": [vectors, 768], "clip_g": [vectors, 1280]}; the token likewise
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from t2i_jax.core.files import atomic_path
from t2i_jax.weights.stored import PICKLES, open_file

OF_FILE = "emb_params"  # an array whose token is the name of its file
OF_XL = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}


def read(path: str | Path, widths: Mapping[str, int]) -> tuple[str, dict[str, np.ndarray]]:
    """Return (the token, {text encoder: its vectors, float32 [vectors, D]}).

    widths: {text encoder: D}.
    Raises ValueError for a pickle, and for embeddings of other text encoders.
    """
    path = Path(path)
    if path.suffix in PICKLES:
        raise ValueError(
            f"{path} is a pickle, which could run any code when it is read: get the embedding as "
            ".safetensors"
        )
    arrays = {name: np.asarray(x, np.float32) for name, x in open_file(path).items()}
    token = path.stem
    if arrays.keys() == OF_XL.keys():
        found = {OF_XL[name]: x for name, x in arrays.items()}
    elif len(arrays) == 1 and len(widths) == 1:
        ((name, array),), (encoder,) = arrays.items(), widths
        token, found = (token if name == OF_FILE else name), {encoder: array}
    else:
        found = {}
    found = {name: x[None] if x.ndim == 1 else x for name, x in found.items()}
    if {name: x.shape[-1] for name, x in found.items() if x.ndim == 2} != dict(widths):
        shapes = {name: [*x.shape] for name, x in arrays.items()}
        raise ValueError(
            f"{path} is no embedding for this model: it has {shapes}, and the vectors of a token "
            f"here are {dict(widths)} numbers"
        )
    if len({len(x) for x in found.values()}) > 1:
        raise ValueError(f"{path} is damaged: its encoders have different numbers of vectors")
    return token, found


def write(path: Path, token: str, vectors: Mapping[str, np.ndarray]) -> None:
    """Write a file that `read` reads: of one text encoder in diffusers' format, of two in XL's.

    vectors: {text encoder: float32 [vectors, D]}.
    """
    if len(vectors) == 1:
        arrays = {token: next(iter(vectors.values()))}
    else:
        arrays = {name: vectors[encoder] for name, encoder in OF_XL.items()}
    with atomic_path(path) as part:
        save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, part)
