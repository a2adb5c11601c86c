"""How families declare and read their config sections (core/fields.py)."""

import sys
from collections.abc import Mapping
from typing import Any

from t2i_jax.core.fields import Field, defaults_of, module_fields
from t2i_jax.core.settings import with_defaults
from t2i_jax.models.transformer import MLPS, NORMS, Block
from t2i_jax.models.variants import fields_of

# Of fields that many networks have: the meaning, if their docstring gives none, and the limits.
COMMON = {
    "width": Field(None, "channels of the network", 1, 2**16),
    "depth": Field(None, "number of blocks", 0, 1024),
    "heads": Field(None, "attention heads; they divide the width", 1, 1024),
    "blocks": Field(None, "residual blocks of each level", 1, 1024),
    "levels": Field(None, "how often the sides are halved or doubled", 1, 16),
    "patch": Field(None, "side of a patch, in pixels", 1, 1024),
    "reach": Field(None, "reach of the window of tokens around each place", 0, 1024),
    "channels": Field(None, "channels of a picture: 3 for colour, 1 for grey", 1, 3),
    "latent": Field(None, "numbers of a latent vector", 1, 2**16),
    "hidden": Field(None, "width of the hidden layer", 1, 2**20),
    "widths": Field(None, "widths of the hidden layers", 1, 2**20),
    "multipliers": Field(
        None, "channels of each level over `width`, the finest level first", 1, 1024
    ),
    "attention": Field(None, "where there is attention"),
    "queries": Field(None, "vectors that stand for the words of a caption", 1, 1024),
    "dropout": Field(None, "probability that a number is dropped in training", 0.0, 0.999),
    "mlp_ratio": Field(None, "width of the hidden layer of a block over `width`", 0.01, 1024.0),
    "prototypes": Field(
        None, "latents of which the prediction is a mixture; 0: it is linear", 0, 2**20
    ),
    "gate_init": Field(None, "value of the residual gates at the start; 0 closes them"),
    "mapping_layers": Field(None, "layers of the mapping network", 1, 1024),
    "base_channels": Field(None, "channels at side s are base_channels / s", 1, 2**20),
    "max_channels": Field(None, "the most channels at any side", 1, 2**16),
    "causal_text": Field(None, "whether a token of the caption attends only to earlier ones"),
    "dtype": Field(
        None,
        "type of the computation; parameters are float32",
        choices=("float32", "bfloat16", "float16"),
    ),
}
BLOCK = {
    "norm": Field(None, "norm before each branch", choices=NORMS),
    "epsilon": Field(None, "added to the variance in a norm", 0.0),
    "mlp": Field(None, "activation of the hidden layer", choices=MLPS),
    "hidden": Field(None, "width of the hidden layer; 0 for 4 times the width", 0, 2**20),
    "bias": Field(None, "whether linear layers have a bias"),
    "qk_norm": Field(None, "whether queries and keys are normalised"),
    "rope": Field(None, "base of rotary positions; 0 for none", 0.0),
    "kv_heads": Field(None, "heads of keys and values; 0 for as many as `heads`", 0, 1024),
    "head_dim": Field(None, "channels of a head; 0 for width / heads", 0, 2**16),
}


def read_section(config, section: str, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the values of a config section: its own, or the default where it has none.

    Raises ValueError, naming the known fields, for an unknown one.
    """
    return with_defaults(defaults_of(fields), config.get(section, {}), section)


def remat_of(config) -> str:
    """Return `config.parallel.remat`, or "none" if the config has no such section."""
    return config.get("parallel", {}).get("remat", "none")


def network_fields(
    network: type,
    leave_out: tuple[str, ...] = (),
    choices: Mapping[str, tuple] | None = None,
    variant: str = "",
) -> dict[str, Field]:
    """Return the fields of a flax module that a config can set.

    leave_out: fields that the family sets itself, besides `remat`.
    choices: {field: the values it can have}.
    variant: a row of the table VARIANTS in the module's file, which gives the defaults. Where there
        is such a table, `variant` is a field too. Raises ValueError for an unknown one.
    """
    variants = getattr(sys.modules[network.__module__], "VARIANTS", {})
    row = fields_of({"variant": variant}, variants)
    found = {}
    for name, own in module_fields(network, ("remat", *leave_out)).items():
        common = COMMON.get(name, Field(None, ""))
        found[name] = Field(
            default=row.get(name, own.default),
            meaning=own.meaning or common.meaning,
            low=common.low,
            high=common.high,
            choices=(choices or {}).get(name, common.choices),
        )
    if not variants:
        return found
    meaning = "a published size, which gives the defaults of the other fields; '' for none"
    return {"variant": Field("", meaning, choices=("", *variants)), **found}


def transformer_sections(network: type, leave_out: tuple[str, ...] = ()) -> dict[str, dict]:
    """Return the sections "model" and "model.block" of a network with a field `block`.

    network: a module around a `models.transformer.Transformer`, whose blocks `block` describes.
    """
    own = module_fields(Block, leave_out=("heads", "dropout", "dtype", "grid"))
    block = {name: BLOCK[name]._replace(default=field.default) for name, field in own.items()}
    return {
        "model": network_fields(network, ("block", *leave_out)),
        "model.block": block,
    }
