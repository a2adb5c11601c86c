"""The encoder of T5 in the format of Hugging Face: sizes from config.json, names of arrays."""

from collections.abc import Mapping

from t2i_jax.models.t5 import T5Encoder
from t2i_jax.weights.config_json import read_fields
from t2i_jax.weights.published import Path, Published

_SIZES = {
    "width": ("d_model", 512),
    "depth": ("num_layers", 6),
    "heads": ("num_heads", 8),
    "mlp": ("d_ff", 2048),
    "head_dim": ("d_kv", 64),
    "vocab_size": ("vocab_size", 32128),
    "buckets": ("relative_attention_num_buckets", 32),
    "max_distance": ("relative_attention_max_distance", 128),
}
_ONLY = {
    "model_type": ("t5", "t5"),
    "feed_forward_proj": ("gated-gelu", "relu"),
    "layer_norm_epsilon": (1e-6, 1e-6),
}
_OUTSIDE = {
    "embed": "shared",
    "relative_bias": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    "norm_out": "encoder.final_layer_norm",
}
_IN_A_BLOCK = {
    "attention_norm": "0.layer_norm",
    "query": "0.SelfAttention.q",
    "key": "0.SelfAttention.k",
    "value": "0.SelfAttention.v",
    "out": "0.SelfAttention.o",
    "mlp_norm": "1.layer_norm",
    "mlp_gate": "1.DenseReluDense.wi_0",
    "mlp_in": "1.DenseReluDense.wi_1",
    "mlp_out": "1.DenseReluDense.wo",
}


def fields(config: Mapping) -> dict:
    """Return the fields of `t2i_jax.models.t5.T5Encoder` from a config.json.

    Raises ValueError for an architecture that T5Encoder does not compute, such as the first T5.
    """
    return read_fields(config, _SIZES, _ONLY)


def config_json(net: T5Encoder) -> dict:
    """Return the config.json with which transformers builds it: the inverse of `fields`."""
    sizes = {theirs: getattr(net, ours) for ours, (theirs, _) in _SIZES.items()}
    only = {name: value for name, (value, _) in _ONLY.items()}
    return {"architectures": ["T5EncoderModel"], **only, **sizes}


def published(path: Path) -> Published:
    """Return where a parameter of T5Encoder is in a published T5EncoderModel."""
    module, *rest = path
    if module in _OUTSIDE:
        name = _OUTSIDE[module]
    else:
        name = f"encoder.block.{module.removeprefix('block_')}.layer.{_IN_A_BLOCK[rest[0]]}"
    return Published(f"{name}.weight", "linear" if rest[-1:] == ["kernel"] else "same")


def ignored(name: str) -> bool:
    """Return whether a published array may be left over: a second copy of the token vectors."""
    return name == "encoder.embed_tokens.weight"
