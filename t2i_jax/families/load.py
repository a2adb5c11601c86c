"""Find a model family by name: a family is a file of this folder with `make(config, axis_name)`.

A family of another package is named by its module: `config.family = "my_package.my_family"`.
"""

from t2i_jax.core.family import Family
from t2i_jax.core.registry import lookup


def load_family(config, axis_name: str | None = None) -> Family:
    """Return the family that `config.family` names.

    axis_name: the pmap axis for operations across examples; None outside pmap.
    Raises ValueError, naming the nearest, for an unknown family.
    """
    return lookup("families", config.family)(config, axis_name)
