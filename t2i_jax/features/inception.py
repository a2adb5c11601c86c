"""Inception-v3 in the FID variant, from a file that the user names: what a Frechet distance may be called FID with."""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.convert import inception as convert
from t2i_jax.convert import weights
from t2i_jax.features.extractor import Extractor
from t2i_jax.models.inception import Inception

SIDE = 299
RULE = f"bilinear as in TensorFlow 1 (not antialiased, corners not aligned) to {SIDE} x {SIDE}, (x - 128) / 128"


def resize(x, side: int = SIDE):
    """x float32 [B, H, W, C] to [B, side, side, C] as TensorFlow 1 did it: cell i looks at i * H / side and the cell after.

    No half-cell shift, and no filter when it shrinks: wrong, but what FID means (arXiv 2104.11222).
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
    """The extractor with the weights in `path`: t2i_jax.convert.inception.FILE as published, or its arrays as safetensors.

    features [B, 2048] of the last pool; logits [B, 1008] without their bias, as the Inception Score takes them.
    Raises FileNotFoundError, saying what to get, and ValueError for weights of another network.
    """
    try:
        arrays = weights.read(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Inception-v3 in the FID variant: no file at {path!r}. It takes {convert.FILE} (91 MB; a release file of"
            " torch-fidelity v0.2.0, and of pytorch-fid as pt_inception-2015-12-05-6726825d.pth), or the same arrays as"
            " .safetensors. Put it anywhere and give its path as the path of the extractor 'inception'"
        ) from error
    params = convert.from_published(arrays)
    shapes = jax.eval_shape(Inception().init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))["params"]
    params = weights.fit(params, shapes, str(path))
    return Extractor("Inception-v3 (FID)", RULE, params, apply, fid=True)


def apply(params, pictures):
    """params: those of Inception; pictures: uint8 [B, H, W, 3] -> features and logits."""
    with jax.default_matmul_precision("float32"):  # else TPUs multiply in bfloat16, GPUs in TF32
        x = (resize(pictures.astype(jnp.float32)) - 128.0) / 128.0
        features, logits = Inception().apply({"params": params}, x)
    return {"features": features, "logits": logits}
