"""Types for annotations, beside those of jaxtyping."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Num, UInt8

# For functions that take NumPy and JAX arrays alike: `Float[AnyArray, "B D"]`.
AnyArray = jax.Array | np.ndarray
# One number: a Python number, or a JAX array without axes, which may be traced.
Number = int | float | Num[jax.Array, ""]
# One number, or an array of any shape that broadcasts as the docstring says.
Numbers = int | float | Num[AnyArray, "..."]
# Pictures of one size: an array, or a list of single ones.
Pictures = Sequence[np.ndarray] | UInt8[np.ndarray, "N H W 3"]
