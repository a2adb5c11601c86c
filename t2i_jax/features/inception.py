"""Inception-v3 in the FID variant, from a file that the user names.

A Frechet distance is called FID only in the features of this network.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from t2i_jax.core.types import AnyArray
from t2i_jax.features.extractor import Extractor
from t2i_jax.models.inception import Inception
from t2i_jax.weights import arrays as weights
from t2i_jax.weights import inception as convert

RESOLUTION = 299
RULE = (
    "bilinear as in TensorFlow 1 (not antialiased, corners not aligned) "
    f"to {RESOLUTION} x {RESOLUTION}, (x - 128) / 128"
)


def resize(
    x: Float[AnyArray, "B H W C"], side: int = RESOLUTION
) -> Float[AnyArray, "B {side} {side} C"]:
    """Resize as TensorFlow 1 did: pixel i interpolates at i * H / side.

    There is no shift by half a pixel, and no filter when it shrinks. This is wrong, but it is part
    of the definition of FID (arXiv 2104.11222).
    """
    for axis in (2, 1):
        size = x.shape[axis]
        place = np.arange(side, dtype=np.float32) * np.float32(size / side)
        below = place.astype(np.int32)
        shape = [1, 1, 1, 1]
        shape[axis] = side
        share = (place - below).reshape(shape)
        low, high = (jnp.take(x, i, axis) for i in (below, np.minimum(below + 1, size - 1)))
        x = low + (high - low) * share
    return x


def make(path: str = "") -> Extractor:
    """Return the extractor: features [B, 2048] of the last pool, and logits [B, 1008].

    The logits are without their bias, as the Inception Score takes them.

    path: the file t2i_jax.weights.inception.FILE as published, or its arrays as `.safetensors`.

    Raises FileNotFoundError, saying what to get, and ValueError for weights of another network.
    """
    try:
        arrays = weights.read(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Inception-v3 in the FID variant: no file at {path!r}. It takes {convert.FILE} "
            "(91 MB; a release file of torch-fidelity v0.2.0, and of pytorch-fid as "
            "pt_inception-2015-12-05-6726825d.pth), or the same arrays as .safetensors. Put it "
            "anywhere and give its path as the path of the extractor 'inception'"
        ) from error
    params = convert.from_published(arrays)
    image = jnp.zeros((1, RESOLUTION, RESOLUTION, 3))
    shapes = jax.eval_shape(Inception().init, jax.random.key(0), image)["params"]
    params = weights.match_network(params, shapes, str(path))
    return Extractor("Inception-v3 (FID)", RULE, params, apply, fid=True)


def apply(params, pictures: Num[AnyArray, "B H W 3"]) -> dict[str, Array]:
    """Return features and logits (see `Extractor`).

    params: those of Inception.
    """
    with jax.default_matmul_precision("float32"):  # else TPUs multiply in bfloat16, GPUs in TF32
        x = (resize(pictures.astype(jnp.float32)) - 128.0) / 128.0
        outputs: Any = Inception().apply({"params": params}, x)
    features, logits = outputs
    return {"features": features, "logits": logits}
