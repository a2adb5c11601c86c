"""Published PyTorch weights of EfficientNet-Lite as variables of models/efficientnet_lite.py."""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from t2i_jax.models.efficientnet_lite import EfficientNetLite
from t2i_jax.weights import arrays as weights

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


def convert(
    arrays: Mapping[str, np.ndarray],
    model: EfficientNetLite | None = None,
    source: str = "the file",
) -> dict:
    """Return the variables {"params": ..., "batch_stats": ...} of a model, as float32.

    arrays: by published name, such as "_blocks.0._bn1.weight".
    model: by default Lite0.
    source: where the arrays come from, for messages.

    Raises ValueError, naming the array, if one is missing, left over, or of another shape than the
    model's.
    """
    found = dict(
        _renamed(name, array, source)
        for name, array in arrays.items()
        if not name.endswith("num_batches_tracked")  # used in training only
    )
    init = (model or EfficientNetLite()).init
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return weights.match_network(traverse_util.unflatten_dict(found), shapes, source)


def _renamed(name, array, source):
    """Return the path and the array of ours for a published name and array.

    Kernels are published as [out, in, h, w] and stored here as [h, w, in, out].
    """
    match = NAME.fullmatch(name)
    block, layer, field = match.groups() if match else ("", "", "")
    names = BLOCK_LAYERS if block else LAYERS
    if layer not in names:
        raise ValueError(f"{source} is of another network: EfficientNet-Lite has no {name}")
    prefix = (f"block_{block}",) if block else ()
    if field == "weight" and array.ndim > 1:
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        collection, field = "params", "kernel"
    elif field == "weight":
        collection, field = "params", "scale"
    else:
        collection, field = FIELDS.get(field, ("params", field))
    return (collection, *prefix, names[layer], field), array
