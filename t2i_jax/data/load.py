"""Find a data source by name. A source is a file of this folder (see core/source.py)."""

from t2i_jax.core.registry import lookup
from t2i_jax.core.source import Source


def load_source(config, split: str) -> Source:
    """Return the source that `config.name` names, at `config.resolution`, for one split.

    config: `config.data`.
    split: "train", "validation", "test", or another that the source has.
    Raises ValueError, naming the nearest, for an unknown source.
    """
    return lookup("data", config.name)(config, split)
