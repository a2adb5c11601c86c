"""Published BERT weights, with the names of `BertModel`, as parameters of models/bert.py."""

from collections.abc import Mapping

import numpy as np
from flax.traverse_util import unflatten_dict

EMBEDDINGS = {
    "words": "embeddings.word_embeddings.weight",
    "positions": "embeddings.position_embeddings.weight",
    "segments": "embeddings.token_type_embeddings.weight",
}
DENSE = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/out": "attention.output.dense",
    "mlp_in": "intermediate.dense",
    "mlp_out": "output.dense",
}
NORMS = {"attention_norm": "attention.output.LayerNorm", "mlp_norm": "output.LayerNorm"}


def from_published(tensors: Mapping[str, np.ndarray], depth: int) -> dict:
    """Return the parameters of a `Bert` of `depth` layers, float32.

    The pooler (no text encoder here uses it) and `position_ids` (0, 1, 2, ...) are left out. Raises
    ValueError, naming it, if a tensor is missing or unknown.
    """
    left = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith("pooler.") and name != "embeddings.position_ids"
    }

    def take(name):
        if name not in left:
            raise ValueError(
                f"these are not the weights of a BERT of {depth} layers: {name} is missing"
            )
        return np.asarray(left.pop(name), np.float32)

    def norm(ours, theirs):
        return {f"{ours}/scale": take(f"{theirs}.weight"), f"{ours}/bias": take(f"{theirs}.bias")}

    flat = {ours: take(theirs) for ours, theirs in EMBEDDINGS.items()}
    flat |= norm("norm", "embeddings.LayerNorm")
    for i in range(depth):
        for ours, theirs in DENSE.items():
            name = f"encoder.layer.{i}.{theirs}"
            flat[f"layer_{i}/{ours}/kernel"] = np.ascontiguousarray(take(f"{name}.weight").T)
            flat[f"layer_{i}/{ours}/bias"] = take(f"{name}.bias")
        for ours, theirs in NORMS.items():
            flat |= norm(f"layer_{i}/{ours}", f"encoder.layer.{i}.{theirs}")
    if left:
        raise ValueError(
            f"these are not the weights of a BERT of {depth} layers: {min(left)} is unknown"
        )
    return unflatten_dict(flat, sep="/")
