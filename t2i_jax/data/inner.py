"""A source inside another one: its section "data" is a field of the outer section."""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from t2i_jax.core.fields import defaults_of
from t2i_jax.core.registry import lookup
from t2i_jax.core.source import Source
from t2i_jax.data.load import load_source


def load_inner(config, name: str, split: str) -> Source:
    """Return a split of the source in the section `config[name]`, at `config.resolution`.

    config: `config.data` of the outer source.
    Raises ValueError for a section that names no source, an unknown field, pictures of another
    size or none at all, and whatever the inner source raises.
    """
    own: Any = dict(config[name])
    if not own.get("name"):
        raise ValueError(f'data.{name} names no source: set it as {{"name": "folder", ...}}')
    side = own.setdefault("resolution", config.resolution)
    if side != config.resolution:
        raise ValueError(
            f"data.{name} has pictures of {side} px, and data.resolution is {config.resolution}: "
            "both have to be of one size, so leave it out there"
        )
    known = lookup("data", own["name"], "fields")(ConfigDict(own))
    if unknown := sorted(own.keys() - known - {"name"}):
        raise ValueError(
            f"data.{name} has no field {unknown[0]!r}: {own['name']} has {', '.join(known)}"
        )
    source = load_source(ConfigDict({**defaults_of(known), **own}), split)
    if not len(source.captions):
        raise ValueError(f"data.{name} has no pictures in {split}: at least one is needed")
    shape = source.read(np.zeros(1, np.int64)).shape[1:]
    if shape != (config.resolution, config.resolution, 3):
        raise ValueError(
            f"data.{name} gives pictures of shape {shape}, and data.resolution is "
            f"{config.resolution}: both have to be of one size"
        )
    return source
