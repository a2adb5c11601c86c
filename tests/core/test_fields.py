"""Fields read from a flax module."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict

from t2i_jax.core.fields import Field, defaults_of, module_fields


class Small(nn.Module):
    """A small network.

    width: how many numbers a vector has, which is
        more than one.
    depth, heads: sizes of the trunk.
    dtype: of the computation.

    The last paragraph is about nothing: really.
    """

    codes: int
    width: int = 8
    depth: int = 2
    heads: int = 1
    dtype: Any = jnp.float32
    block: Mapping = FrozenDict({"a": 1})
    silent: bool = False


class Larger(Small):
    """A larger one.

    width: how many numbers a longer vector has.
    """

    width: int = 16


def test_defaults_and_meanings():
    fields = module_fields(Small)
    assert fields == {
        "width": Field(8, "how many numbers a vector has, which is more than one."),
        "depth": Field(2, "sizes of the trunk."),
        "heads": Field(1, "sizes of the trunk."),
        "dtype": Field("float32", "of the computation."),
        "block": Field({"a": 1}, ""),
        "silent": Field(False, ""),
    }
    assert type(fields["block"].default) is dict
    assert defaults_of(fields)["dtype"] == "float32"


def test_a_subclass_has_its_own_and_inherits_the_others():
    fields = module_fields(Larger, leave_out=("heads",))
    assert fields["width"] == Field(16, "how many numbers a longer vector has.")
    assert fields["depth"].meaning == "sizes of the trunk." and "heads" not in fields


def test_a_dtype_without_a_numpy_type():
    class Half(nn.Module):
        dtype: Any = jnp.bfloat16

    assert module_fields(Half)["dtype"].default == "bfloat16"
