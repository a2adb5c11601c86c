"""Published PyTorch weights of EfficientNet-Lite -> variables of t2i_jax/models/efficientnet_lite.py."""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from t2i_jax.convert import weights
from t2i_jax.models.efficientnet_lite import EfficientNetLite

NAME = re.compile(r"(?:_blocks\.(\d+)\.)?(\w+)\.(\w+)")
LAYERS = {
    "_conv_stem": "stem",
    "_bn0": "stem_norm",
    "_conv_head": "head",
    "_bn1": "head_norm",
    "_fc": "classifier",
}
BLOCK_LAYERS = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}
FIELDS = {
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def convert(arrays: Mapping[str, np.ndarray], model: EfficientNetLite | None = None, source: str = "the file") -> dict:
    """{"_blocks.0._bn1.weight": ...} -> {"params": ..., "batch_stats": ...} of `model` (Lite0 by default), as float32.

    Raises ValueError, naming an array of `source`, if one is missing, left over, or of another shape than the model's.
    """
    # num_batches_tracked is of use in training only.
    found = dict(_renamed(*item, source) for item in arrays.items() if not item[0].endswith("num_batches_tracked"))
    shapes = jax.eval_shape((model or EfficientNetLite()).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return weights.fit(traverse_util.unflatten_dict(found), shapes, source)


def _renamed(name, array, source):
    """Published name and array -> path and array of ours: kernels are [out, in, h, w] there and [h, w, in, out] here."""
    block, layer, field = match.groups() if (match := NAME.fullmatch(name)) else (None, None, None)
    names = BLOCK_LAYERS if block else LAYERS
    if layer not in names:
        raise ValueError(f"{source} is of another network: EfficientNet-Lite has no {name}")
    prefix = (f"block_{block}",) if block else ()
    if field == "weight" and array.ndim > 1:
        collection, field, array = "params", "kernel", array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    elif field == "weight":
        collection, field = "params", "scale"
    else:
        collection, field = FIELDS.get(field, ("params", field))
    return (collection, *prefix, names[layer], field), array
