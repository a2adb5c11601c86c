"""Configs: a file is an experiment, with a table of variants; `--config.a.b=value` sets a field.

    load("configs/shapes.py:smoke", ["train.steps=3"]) -> ConfigDict

runs the file's `get_config()`, applies the variant, sets the overrides, fills in the default of
every field that is still missing, and checks each value. Which fields there are is a table of
`core.fields.Field`: BASE (base.py) for every experiment, and `fields(config)` of the family, of
the text encoder and of the data source for the rest.
"""

from t2i_jax.config.base import BASE, base
from t2i_jax.config.files import load
from t2i_jax.config.listing import describe, listing, names
from t2i_jax.config.overrides import override
from t2i_jax.config.stored import copy, from_json, migrate, refuse_wrong_values, to_json

__all__ = [
    "BASE",
    "base",
    "copy",
    "describe",
    "from_json",
    "listing",
    "load",
    "migrate",
    "names",
    "override",
    "refuse_wrong_values",
    "to_json",
]
