"""Find a model family by name: a family is a file of this folder with `make(config, axis_name)`.

A family of another package is named by its module: `config.family = "my_package.my_family"`.
"""

from t2i_jax.core.family import Family
from t2i_jax.core.registry import lookup
from t2i_jax.families.lora import adapted


def load_family(config, axis_name: str | None = None) -> Family:
    """Return the family that `config.family` names.

    axis_name: the pmap axis for operations across examples; None outside pmap.
    Raises ValueError, naming the nearest, for an unknown family.
    """
    return lookup("families", config.family)(config, axis_name)


def load_trained(config, axis_name: str | None = None) -> Family:
    """Return what training trains: the family, or an adapter of it (`config.lora`)."""
    family = load_family(config, axis_name)
    return adapted(family, config) if config.lora.rank else family
